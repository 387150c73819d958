"""A user's parallel corpus -> `Texts`: the translations that need no translator.

In: rows with an id that is equal for translations of one text, a language and the text (JSONL, Parquet). Out:
`Texts` whose translations name their original, with every row that is not among them counted by its reason. A
language out of step is refused: translations of one text have lengths that go together (Gale and Church
1993), so out of step their correlation is lost.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.raters.table import Texts
from quadmix.types import Floats

NO_ID, NO_LANGUAGE, SLASH = "no id", "no language", "language with a slash"
NO_TEXT, EMPTY = "text is not a string", "empty text"
TWICE, TWICE_OTHER = "id and language twice, same text", "id and language twice, another text"
_NONE = ""  # the language under which rows without one are counted
_CLEAR = 0.5  # correlation from which on a shift is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelColumns:
    """Names of the user's columns."""

    id: str = "parallel_id"
    language: str = "lang"
    text: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """correlation: of log lengths with the original's, at least, over all texts and over either half of them.
    found: share of a language's ids that the original language has, at least. least: texts from which on the
    correlation is judged. shifts: places by which a file may have slipped that are looked for. margin: by how
    much the correlation after a shift must be higher. spread: standard deviation of log lengths from which on
    lengths can tell anything; excerpts of one length cannot."""

    correlation: float = 0.3
    found: float = 0.5
    least: int = 20
    shifts: int = 3
    margin: float = 0.1
    spread: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How a language goes along with the reference. texts: its number. found: share of them whose id the
    reference has. correlation: the lowest of log lengths over all texts and over the halves, NaN where they
    are too few or of one length. shift: places after which the lengths fit better, 0 where they do not."""

    language: str
    texts: int
    found: float
    correlation: float
    shift: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParallelCorpus:
    """texts: sorted by language and id. rows: read = len(texts) + all of dropped. dropped: language ->
    reason -> rows. steps: per language but the reference's."""

    texts: Texts
    rows: int
    dropped: dict[str, dict[str, int]]
    steps: tuple[Step, ...]


def read_parallel(
    paths: Sequence[str],
    *,
    original: str | None = "en",
    columns: ParallelColumns | None = None,
    codes: Mapping[str, str] | None = None,
    everywhere: str | None = None,
    name: str = "",
    limits: StepLimits | None = None,
) -> ParallelCorpus:
    """Read files of rows. Of rows with equal id and language the first is taken.

    original: the language of the texts that the others translate; None: no language is, every text is an
    original, and the language with the most texts is the reference of the check. codes: the files' language
    codes -> those wanted, for the ones that differ. everywhere: the language of all rows, read
    from no column. name: put before each id, so that corpora can be joined in which equal ids mean different
    texts.

    Raises InputError for a file that cannot be read or has none of the columns, for one out of step, and
    where no text is in the language `original`.
    """
    columns, codes = columns or ParallelColumns(), codes or {}

    def rows() -> Iterator[tuple[Any, Any, Any]]:
        for path in paths:
            records = read_records(path)
            for column in (columns.id, *(() if everywhere else (columns.language,)), columns.text):
                if records and not any(column in r for r in records):
                    raise InputError(
                        f"{path}: no row has a column {column!r}, found {', '.join(records[0])}; name the "
                        "columns of id, language and text"
                    )
            for record in records:
                language = everywhere or record.get(columns.language)
                yield record.get(columns.id), codes.get(str(language), language), record.get(columns.text)

    return _corpus(rows(), original, name, limits or StepLimits(), ", ".join(paths))


def _corpus(
    rows: Iterable[tuple[Any, Any, Any]], original: str | None, name: str, limits: StepLimits, where: str
) -> ParallelCorpus:
    found: dict[str, dict[str, str]] = {}
    dropped: dict[str, Counter[str]] = {}
    count = 0
    for id_, language, text in rows:
        count += 1
        reason = _unfit(id_, language, text)
        code = language.strip() if isinstance(language, str) else _NONE
        if reason is None:
            known = found.setdefault(code, {})
            if (key := f"{name}{id_}") in known:
                reason = TWICE if known[key] == text else TWICE_OTHER
            else:
                known[key] = text
        if reason is not None:
            dropped.setdefault(code, Counter())[reason] += 1
    if not found:
        raise InputError(f"{where}: none of {count} rows has an id, a language and a text; check the columns")
    if original is not None and original not in found:
        raise InputError(
            f"{where}: no text is in the original language {original!r}, found {', '.join(sorted(found))}; "
            "name another, or none"
        )
    reference = original or min(found, key=lambda code: (-len(found[code]), code))
    steps = tuple(
        _step(code, found[code], found[reference], limits) for code in sorted(found) if code != reference
    )
    _refuse_out_of_step(steps, reference, limits, where)
    return ParallelCorpus(
        texts=_texts(found, original),
        rows=count,
        dropped={code: dict(sorted(reasons.items())) for code, reasons in sorted(dropped.items())},
        steps=steps,
    )


def _unfit(id_: Any, language: Any, text: Any) -> str | None:
    """Return why a row cannot be used, None if it can."""
    if not isinstance(id_, str | int) or isinstance(id_, bool) or id_ == "":
        return NO_ID
    if not isinstance(language, str) or not language.strip():
        return NO_LANGUAGE
    if "/" in language:  # it parts language and id in the ids of texts
        return SLASH
    if not isinstance(text, str):
        return NO_TEXT
    return None if text.strip() else EMPTY


def _texts(found: Mapping[str, Mapping[str, str]], original: str | None) -> Texts:
    keys = sorted((code, id_) for code, texts in found.items() for id_ in texts)
    originals = found[original] if original is not None else {}
    return Texts(
        ids=tuple(f"{code}/{id_}" for code, id_ in keys),
        source=tuple(id_ for _, id_ in keys),
        origin=tuple(f"{original}/{i}" if code != original and i in originals else "" for code, i in keys),
        language=tuple(code for code, _ in keys),
        text=tuple(found[code][id_] for code, id_ in keys),
    )


def _step(code: str, texts: Mapping[str, str], reference: Mapping[str, str], limits: StepLimits) -> Step:
    common = [id_ for id_ in reference if id_ in texts]  # in the reference's order, for the shifts
    x = np.log([len(reference[i]) for i in common]) if common else np.empty(0)
    y = np.log([len(texts[i]) for i in common]) if common else np.empty(0)
    correlation, shift = float("nan"), 0
    if len(common) >= limits.least and min(x.std(), y.std()) >= limits.spread:
        middle = len(common) // 2
        parts = [slice(None), *((slice(middle), slice(middle, None)) if middle >= limits.least else ())]
        correlation = min(_correlation(x[part], y[part]) for part in parts)
        shift = _shift(x, y, limits)
    return Step(
        language=code, texts=len(texts), found=len(common) / len(texts), correlation=correlation, shift=shift
    )


def _shift(x: Floats, y: Floats, limits: StepLimits) -> int:
    """Return by how many places y stands behind x where that fits clearly better than no shift, else 0.

    Where texts are sorted by length, neighbours correlate too, and the correlation alone would pass a slip.
    """
    here = _correlation(x, y)
    best, place = max(
        (_correlation(x[max(0, -s) : len(x) - max(0, s)], y[max(0, s) : len(y) - max(0, -s)]), s)
        for s in range(-limits.shifts, limits.shifts + 1)
        if len(x) - abs(s) >= limits.least or s == 0
    )
    return place if best >= max(here + limits.margin, _CLEAR) else 0


def _correlation(x: Floats, y: Floats) -> float:
    """Return Pearson's correlation; 0 where one side is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _refuse_out_of_step(steps: Iterable[Step], reference: str, limits: StepLimits, where: str) -> None:
    for step in steps:
        who = f"{where}: language {step.language!r} is out of step with {reference!r}"
        if step.texts >= limits.least and step.found < limits.found:
            raise InputError(
                f"{who}: {step.found:.0%} of its {step.texts} ids are found there, expected at least "
                f"{limits.found:.0%}; are the ids of both of one kind? Leave the language out, or mend them"
            )
        if step.shift or step.correlation < limits.correlation:
            slip = f", and its texts stand {step.shift} places off" if step.shift else ""
            raise InputError(
                f"{who}: log lengths correlate by {step.correlation:.2f} over "
                f"{round(step.texts * step.found)} texts (all, or one half of them), expected at least "
                f"{limits.correlation:g}{slip}; align it anew, or leave it out"
            )
