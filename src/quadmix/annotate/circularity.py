"""Was a rater trained on what the mixture is judged by? Then a better loss proves less than it seems.

In: what a rater was trained on and the targets of a run, by their names and, where the texts are at hand,
by shared 13-grams. Out: warnings. The case in point is DCLM's classifier, trained on OpenHermes and ELI5: a
mixture that it selects does well on OpenHermes for that reason alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from quadmix.annotate.overlap import NGRAM, Hashes, count_overlap, ngram_hashes
from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.recipe import CriterionSection, LabelledSet

SHARE = 0.01  # of a target's rows found in the training text, from which on it is a warning
_CHUNK = 256  # training texts hashed at a time

# Data sets under the names that cards, hubs and file names use; compared without case and separators.
ALIASES: dict[str, tuple[str, ...]] = {
    "OpenHermes": ("openhermes", "teknium openhermes", "oh25", "oh eli5"),
    "ELI5": ("eli5", "oh eli5", "explain like im five", "explain like i am five"),
    "FineWeb-Edu": ("fineweb edu",),
    "FineWeb": ("fineweb",),
    "FineWeb-2": ("fineweb2", "fineweb c"),
    "MMLU": ("mmlu", "hendrycks test", "measuring massive multitask language understanding"),
    "ARC": ("arc", "ai2 arc", "arc easy", "arc challenge", "arc e", "arc c"),
    "HellaSwag": ("hellaswag",),
    "PIQA": ("piqa",),
    "WinoGrande": ("winogrande",),
    "OpenBookQA": ("openbookqa", "obqa"),
    "CommonsenseQA": ("commonsenseqa", "commonsense qa", "csqa"),
    "BoolQ": ("boolq",),
    "TriviaQA": ("triviaqa", "trivia qa"),
    "Natural Questions": ("natural questions", "nq open"),
    "SQuAD": ("squad",),
    "LAMBADA": ("lambada",),
    "GSM8K": ("gsm8k", "grade school math"),
    "MATH": ("hendrycks math", "math500", "competition math"),
    "HumanEval": ("humaneval",),
    "MBPP": ("mbpp",),
    "SciQ": ("sciq",),
    "Wikipedia": ("wikipedia", "enwiki"),
    "Stack Exchange": ("stackexchange", "stack exchange", "stack overflow"),
    "OpenAssistant": ("oasst", "oasst1", "oasst2", "open assistant"),
    "WildChat": ("wildchat",),
    "UltraChat": ("ultrachat",),
    "Tulu": ("tulu", "tulu 3 sft"),
    "C4": ("c4",),
    "RedPajama": ("redpajama",),
    "SlimPajama": ("slimpajama",),
    "The Pile": ("the pile", "pile uncopyrighted"),
    "Dolma": ("dolma",),
    "DCLM": ("dclm", "dclm baseline"),
    "Infinity-Instruct": ("infinity instruct",),
    "RefinedWeb": ("refinedweb", "refined web"),
    "WebOrganizer": ("weborganizer",),
}
_WORDS = re.compile(r"[a-z]+|[0-9]+")
_ROLES = {"good": "takes as good", "labelled": "has labels for", "bad": "takes as bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """rows: of the target; comparable: those of at least 13 words; shared: those of which a 13-gram stands in
    the rater's training text. role: good, bad or labelled."""

    rater: str
    role: str
    target: str
    rows: int
    comparable: int
    shared: int

    @property
    def share(self) -> float:
        """Of the comparable rows, NaN where there is none."""
        return self.shared / self.comparable if self.comparable else float("nan")


def circularity(
    card_trained_on: Sequence[str], targets: Sequence[str], *, rater: str = "the rater"
) -> tuple[str, ...]:
    """Return a warning per target that names a data set which the rater was trained on.

    targets: names and paths of the targets; of a path the last folder and the file name are read.
    """
    trained = {family: name for name in card_trained_on for family in families(name)}
    warnings: list[str] = []
    for target in targets:
        for family in sorted(families(_tail(target)) & trained.keys()):
            warnings.append(
                f"{rater} was trained on {trained[family]!r}, and the target {target!r} is {_spelt(family)} "
                "by its name: a lower loss there may be the rater's own training data; judge by other targets"
            )
    return tuple(dict.fromkeys(warnings))


def families(name: str) -> set[str]:
    """Return the data sets that a name stands for: known ones by their aliases, else the name itself."""
    words = _WORDS.findall(name.lower())
    found: set[str] = set()
    at = 0
    while at < len(words):
        for end in range(min(len(words), at + 8), at, -1):  # the longest first: FineWeb-Edu is not FineWeb
            if known := _BY_ALIAS.get("".join(words[at:end])):
                found |= known
                at = end
                break
        else:
            at += 1
    if found:
        return found
    own = "".join(_WORDS.findall(name.lower().rsplit("/", 1)[-1].split(".")[0]))
    return {own} if len(own) >= 4 else set()


def _by_alias() -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for family, aliases in ALIASES.items():
        for alias in aliases:
            out.setdefault("".join(_WORDS.findall(alias)), set()).add(family)
    return out


_BY_ALIAS = _by_alias()


def _tail(target: str) -> str:
    return "/".join(target.replace("\\", "/").rsplit("/", 2)[-2:]) if "/" in target else target


def _spelt(family: str) -> str:
    return family if family in ALIASES else "the same"


def shared_text(
    rater: str, role: str, training: Iterable[str], targets: Mapping[str, Sequence[str]]
) -> tuple[Shared, ...]:
    """Count the rows of each target whose 13-grams occur in the training texts, read once, a few at a time.

    Memory: the n-grams of the targets, whatever the size of the training set.
    """
    wanted = ngram_hashes([t for texts in targets.values() for t in texts])
    found = np.zeros(len(wanted), dtype=bool)
    texts = iter(training)
    while len(wanted) and (chunk := list(islice(texts, _CHUNK))):
        hashes = ngram_hashes(chunk)
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[at[wanted[at] == hashes]] = True
    return tuple(_shared(rater, role, name, rows, wanted[found]) for name, rows in targets.items())


def _shared(rater: str, role: str, target: str, rows: Sequence[str], hashes: Hashes) -> Shared:
    comparable = [text for text in rows if len(ngram_hashes([text]))]
    return Shared(
        rater=rater,
        role=role,
        target=target,
        rows=len(rows),
        comparable=len(comparable),
        shared=int(count_overlap(comparable, hashes).sum()),
    )


def criterion_circularity(
    section: CriterionSection, targets: Mapping[str, Sequence[str]]
) -> tuple[Shared, ...]:
    """Hold the labelled sets of a criterion (linear, regression) against the texts of the targets.

    Raises InputError for a file that is not there or has no such column.
    """
    sets = {"good": section.good, "bad": section.bad, "labelled": section.labelled}
    return tuple(
        shared
        for role, named in sets.items()
        if named
        for shared in shared_text(section.name, role, _texts(named, section.name), targets)
    )


def shared_warnings(found: Sequence[Shared]) -> list[str]:
    """Return a warning for every target of which at least 1 % of the rows stand in the training text."""
    return [
        f"criterion {s.rater!r} {_ROLES.get(s.role, 'was trained on')} text of the target {s.target!r}: "
        f"{s.shared} of {s.comparable} rows ({s.share:.1%}) share {NGRAM} words in a row with its training "
        "set; a loss there says little about other text. Take these rows out of one of the two"
        for s in found
        if s.comparable and s.share >= SHARE
    ]


def _texts(sets: Sequence[LabelledSet], name: str) -> Iterator[str]:
    for labelled in sets:
        for number, row in enumerate(read_records(labelled.path)):
            text = row.get(labelled.text)
            if not isinstance(text, str):
                raise InputError(
                    f"criterion {name!r}: {labelled.path}, row {number} has no text in column "
                    f"{labelled.text!r}, expected a string; it has {', '.join(sorted(row))}"
                )
            yield text
