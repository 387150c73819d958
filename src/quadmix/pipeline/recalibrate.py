"""θ* of a finished search at another token budget, without a new search.

In: a run folder, a number of tokens. Out: θ* fitted to it (cutoffs scaled, under the recipe's limits with the
epochs that the new budget implies), in theta-<tokens>.json, and what every domain gives before and after.
The proxies were trained at the run's own budget: nothing here says that θ* is better at another.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quadmix.annotate.table import SELECTABLE
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.io.lease import lease
from quadmix.materialise.card import read_theta
from quadmix.mixing.limits import limits_from
from quadmix.mixing.normalise import Normaliser
from quadmix.pipeline.mix import Part, whole_part
from quadmix.pipeline.stages import check_budget, load_table, without_multipliers
from quadmix.recipe import Recipe, load_recipe
from quadmix.types import Annotations, Confirmation, Corpus, Floats, Theta

_MOST_EPOCHS = 4.0  # beyond about four, repeated tokens are worth less


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainAt:
    """What one domain gives at one budget. tokens: selected, copies counted; share: of all selected tokens;
    epochs: how often the training sees a selected document on average; cutoff: the worst rank kept."""

    tokens: int
    share: float
    epochs: float
    cutoff: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainChange:
    """One domain at the run's own budget and at the new one."""

    domain: str
    available: int
    before: DomainAt
    after: DomainAt


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """θ* at another budget. epochs: of the training over the selection, before and after."""

    file: str
    budget_before: int
    budget: int
    train_tokens_before: int
    train_tokens: int
    domains: tuple[DomainChange, ...]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the table and the warnings as text."""
        head = f"{'domain':20} {'tokens':>15} {'->':>15} {'share':>7} {'->':>7} {'epochs':>6} {'->':>6}"
        rows = [
            f"{d.domain:20} {d.before.tokens:>15,} {d.after.tokens:>15,} {d.before.share:>7.1%} "
            f"{d.after.share:>7.1%} {d.before.epochs:>6.2f} {d.after.epochs:>6.2f}"
            for d in self.domains
        ]
        return [
            f"θ* at {self.budget:,} tokens ({self.budget_before:,} in the run), trained for "
            f"{self.train_tokens:,} ({self.train_tokens_before:,})",
            head,
            *rows,
            *(f"warning: {w}" for w in self.warnings),
            f"θ        {self.file}",
        ]


def recalibrate(run_folder: str | Path, tokens: int, *, train_tokens: int | None = None) -> Recalibration:
    """Fit the θ* of a run to `tokens` and write theta-<tokens>.json into its folder.

    train_tokens: length of the training; the recipe's, or one epoch, if left out. Raises InputError where
    there is no θ* yet, BudgetError where the pool or the recipe's limits cannot give the budget.
    """
    folder = Path(run_folder)
    theta, recipe, table = _opened(folder)
    mixing = read_json(folder / "stages" / "mixing.json")["facts"]
    planned, planned_length = int(mixing["budget"]), int(mixing["train_tokens"])
    length = train_tokens or recipe.budget.train_tokens or tokens
    check_budget(tokens, int(table.tokens.sum(dtype=np.int64)), len(table), len(table.domains))
    before = _part(folder, recipe, table, planned, planned_length)
    after = _part(folder, recipe, table, tokens, length)
    old, new = before.calibrate(theta), after.calibrate(theta)
    available = table.domain_tokens().tolist()
    sides = zip(_given(before, old, planned_length), _given(after, new, length), strict=True)
    domains = tuple(
        DomainChange(domain=name, available=round(have), before=was, after=now)
        for name, have, (was, now) in zip(table.domains, available, sides, strict=True)
    )
    file = folder / f"theta-{tokens}.json"
    with lease(folder):
        write_json(file, new)
    return Recalibration(
        file=str(file), budget_before=planned, budget=tokens, train_tokens_before=planned_length,
        train_tokens=length, domains=domains,
        warnings=(*_unconfirmed(folder), *_warnings(domains, new, tokens, planned, length)),
    )  # fmt: skip


def _opened(folder: Path) -> tuple[Theta, Recipe, Annotations]:
    """Return the confirmed θ as it was found (fitted to no budget but the proxies'), recipe and table."""
    if not (folder / "recipe.resolved.yaml").is_file():
        raise InputError(f"{str(folder)!r} is no run folder (it has no recipe.resolved.yaml)")
    confirmed = folder / "search" / "confirm.json"
    theta = read_value(confirmed, Confirmation).theta if confirmed.is_file() else read_theta(folder)
    if theta is None:
        raise InputError(
            f"{str(folder)!r} has no θ* yet (no search/confirm.json); run `quadmix search` on its recipe"
        )
    recipe = load_recipe(str(folder / "recipe.resolved.yaml"))
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    loaded = load_table(folder, corpus, recipe)
    return theta, recipe, loaded.table.take(loaded.excluded == SELECTABLE)


def _part(folder: Path, recipe: Recipe, table: Annotations, budget: int, train_tokens: int) -> Part:
    """Return the whole pool under a budget and the recipe's limits, as the mixing stage makes it."""
    limits = without_multipliers(limits_from(recipe.mixing, table.domains, epochs=train_tokens / budget))
    normaliser = read_value(folder / "normaliser.json", Normaliser)
    return whole_part(recipe, table, normaliser, float(budget), limits)


def _given(part: Part, theta: Theta, train_tokens: int) -> list[DomainAt]:
    """Return what every domain gives under θ: the run's own draw of copies, so counts are of documents."""
    copies, tokens = part.select(theta).copies, part.table.tokens.astype(np.float64)
    selected, unique = (_per_domain(part.table, tokens * c) for c in (copies, copies > 0))
    seen = train_tokens / max(selected.sum(), 1.0)
    return [
        DomainAt(
            tokens=round(s), share=s / max(selected.sum(), 1.0), epochs=seen * s / u if u else 0.0, cutoff=w
        )
        for s, u, w in zip(selected.tolist(), unique.tolist(), theta.cutoff.tolist(), strict=True)
    ]


def _per_domain(table: Annotations, values: Floats) -> Floats:
    return np.bincount(table.domain, weights=values, minlength=len(table.domains)).astype(np.float64)


def _unconfirmed(folder: Path) -> list[str]:
    file = folder / "search" / "confirm.json"
    if not file.is_file() or read_value(file, Confirmation).confirmed:
        return []
    return [f"θ* was not confirmed at the run's own budget either: {read_value(file, Confirmation).reason}"]


def _warnings(
    domains: tuple[DomainChange, ...], theta: Theta, tokens: int, planned: int, train_tokens: int
) -> list[str]:
    out: list[str] = []
    if repeated := [d for d in domains if d.after.epochs > _MOST_EPOCHS]:
        named = ", ".join(f"{d.domain} {d.after.epochs:.1f}" for d in repeated)
        out.append(
            f"{train_tokens:,} training tokens see selected documents more than {_MOST_EPOCHS:g} times in: "
            f"{named}; beyond that, repeated tokens are worth less"
        )
    closed = [d.domain for d, w in zip(domains, theta.cutoff.tolist(), strict=True) if w >= 1 - 1e-9]
    if closed:
        out.append(
            f"the cutoff is 1 in {', '.join(closed)}: every document there is inside the window, so quality "
            "no longer decides who is in, only how often"
        )
    if tokens != planned:
        out.append(
            f"the proxies were measured at a budget of {planned:,} tokens: that θ* is better than its "
            f"control is not confirmed at {tokens:,}; a run with budget.tokens: {tokens} would tell"
        )
    return out
