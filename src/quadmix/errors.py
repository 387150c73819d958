"""One exception tree; every error names the thing, what was got, what was expected, and the remedy.

QuadmixError
├── RecipeError        the user's YAML (exit code 2)
├── InputError         corpus, targets, labelled sets: what the user's files contain
│   ├── QuarantineError  more bad rows than the limit allows (exit code 3)
│   └── StoreError       an object store refuses, does not answer, or may not be used
├── ScoreError         NaN, missing or constant scores where numbers were needed
├── BudgetError        a token budget that cannot be met
├── ProxyError         a proxy could not be trained (becomes a failed Trial, not a crash)
├── SearchError        too few trials, constant losses, nothing to fit
├── RefusalError       the search found no gain beyond the noise; nothing was written
├── IdentityError      a run folder that belongs to another recipe, corpus or version
├── LeaseError         another process writes to the run folder
├── IntegrityError     rows, copies or digests do not add up
├── MissingExtraError  an optional package is not installed
└── Interrupted        Ctrl-C or SIGTERM, with the command that resumes (exit code 4)
"""


class QuadmixError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class RecipeError(QuadmixError):
    """The recipe does not fit the schema or contradicts itself."""

    exit_code = 2


class InputError(QuadmixError):
    """A file of the user's is missing, empty, truncated or lacks a column."""


class QuarantineError(InputError):
    """More rows were quarantined than the recipe allows."""

    exit_code = 3


class StoreError(InputError):
    """An object store refuses, does not answer, or may not be used (scheme, keys in a URL, offline)."""


class ScoreError(QuadmixError):
    """Scores are missing, not finite or constant where the method needs numbers."""


class BudgetError(QuadmixError):
    """The token budget is not positive or exceeds what the pool can give."""


class ProxyError(QuadmixError):
    """One proxy failed; the swarm records it and goes on."""


class SearchError(QuadmixError):
    """The trials do not allow a fit."""


class RefusalError(QuadmixError):
    """The gain of the proposal is inside the noise, so nothing was materialised."""


class IdentityError(QuadmixError):
    """The run folder belongs to a run with another identity (promise P1)."""


class LeaseError(QuadmixError):
    """Another process holds the run folder (promise P9)."""


class IntegrityError(QuadmixError):
    """Conservation or a digest is violated (promises P3 and P4)."""


class Interrupted(QuadmixError):
    """The run was stopped by a signal; the same command resumes it."""

    exit_code = 4


class MissingExtraError(QuadmixError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, feature: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}; install it with: pip install 'quadmix[{extra}]'"
        )
