"""dataset/languages.json: tokens, scores and ranks per language of the corpus's language column.

In: `part-*.json` of all splits. Out: `LanguageFacts`, languages by tokens. Counts are exact. A column with
more than MAX_LANGUAGES values is none of languages, and nothing is kept of it, so memory stays small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from quadmix.io.atomic import read_value
from quadmix.materialise.gather import COUNTS, CUTS, MAX_LANGUAGES, SplitLanguages, facts_file
from quadmix.materialise.table import SelectionInfo
from quadmix.types import Floats, Ints
from quadmix.types.facts import LanguageCell, LanguageFacts, LanguageRow


@dataclass(slots=True, kw_only=True, eq=False)
class _Sum:
    """One language so far; see `SplitLanguages`."""

    counts: Ints
    selectable: int
    within: Ints
    known: Ints
    total: Floats
    cells: dict[int, Ints] = field(default_factory=dict[int, Ints])


def language_facts(
    work: str, splits: Sequence[int], column: str, info: SelectionInfo, plan: str
) -> LanguageFacts:
    """Add up the languages of all splits, in the order of the corpus. plan: of the manifest."""
    found: dict[str, _Sum] = {}
    for split in splits:
        part = read_value(facts_file(work, split), SplitLanguages)
        if part.too_many or len(found.keys() | set(part.names)) > MAX_LANGUAGES:
            reason = f"the column {column!r} has more than {MAX_LANGUAGES} values, which are not languages"
            return no_languages(info, plan, reason)
        _add(found, part, len(info.criteria))
    names = sorted(found, key=lambda n: (-int(found[n].counts[1]), n))
    cells = [
        LanguageCell(language=n, domain=info.domains[m], tokens_in=int(t[0]), tokens_out=int(t[1]))
        for n in names
        for m, t in sorted(found[n].cells.items())
    ]
    return LanguageFacts(
        plan=plan, column=column, reason="", criteria=tuple(c.name for c in info.criteria), cuts=CUTS,
        languages=tuple(_row(n, found[n]) for n in names), cells=tuple(cells),
    )  # fmt: skip


def no_languages(info: SelectionInfo, plan: str, reason: str) -> LanguageFacts:
    """Return the file of a dataset whose languages were not counted."""
    return LanguageFacts(
        plan=plan, column="", reason=reason, criteria=tuple(c.name for c in info.criteria), cuts=CUTS,
        languages=(), cells=(),
    )  # fmt: skip


def _add(found: dict[str, _Sum], part: SplitLanguages, criteria: int) -> None:
    for i, name in enumerate(part.names):
        one = found.setdefault(
            name,
            _Sum(
                counts=np.zeros(len(COUNTS), dtype=np.int64), selectable=0,
                within=np.zeros(len(CUTS), dtype=np.int64), known=np.zeros(criteria, dtype=np.int64),
                total=np.zeros(criteria),
            ),
        )  # fmt: skip
        one.counts += part.counts[i]
        one.selectable += int(part.selectable[i])
        one.within += part.within[i]
        one.known += part.known[i]
        one.total += part.total[i]
        for _, domain, *tokens in part.cells[part.cells[:, 0] == i].tolist():
            one.cells[domain] = one.cells.get(domain, 0) + np.array(tokens, dtype=np.int64)


def _row(name: str, one: _Sum) -> LanguageRow:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = one.total / one.known
    return LanguageRow(
        language=name,
        **dict(zip(COUNTS, map(int, one.counts), strict=True)),
        selectable_tokens=one.selectable,
        within=tuple(one.within.tolist()),
        known=tuple(one.known.tolist()),
        mean=tuple(mean.tolist()),
    )
