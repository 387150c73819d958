"""Why cards: the stored numbers of given documents of a run, and the beginning of their texts.

In: a run folder and places of documents in it. Out: a `Card` per document, from annotations/, selection/ and
θ, and the text from samples.parquet or, split by split, from the user's files. `explain` recomputes every
number of one document; here only the draw is made again, so that many are quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quadmix.corpus.read import read_documents
from quadmix.errors import IntegrityError, QuadmixError
from quadmix.io.atomic import read_table, read_value, table_columns
from quadmix.io.fs import file_size
from quadmix.io.tables import read_slice
from quadmix.materialise.card import read_theta
from quadmix.materialise.sample import TEXT_CHARACTERS
from quadmix.materialise.table import SELECTION, SelectionManifest, SelectionTable, part_name, read_part
from quadmix.mixing.settle import drawn
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Corpus, Theta
from quadmix.types.diffing import Card, CardScore

SAMPLES = "samples.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a document stands: its split of the corpus and its row there."""

    split: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The beginning of a document's text and how many characters it has, or why it was not read."""

    text: str | None
    characters: int = 0
    note: str = ""


def find_places(folder: Path, manifest: SelectionManifest, doc_ids: Sequence[str]) -> dict[str, Place]:
    """Return where the documents stand, the first of several with one id; one that is nowhere is left out."""
    keys, found = doc_keys(doc_ids), dict[str, Place]()
    for part in manifest.parts if len(keys) else ():
        path = folder / SELECTION / part.name
        rows = np.flatnonzero(np.isin(read_table(path, columns=["key"])["key"].to_numpy(), keys))
        for row in rows.tolist():
            doc_id = str(read_slice(path, row, row + 1, columns=["doc_id"])["doc_id"][0].as_py())
            if doc_id in doc_ids:  # another id may have the same hash
                found.setdefault(doc_id, Place(split=part.split, row=row))
    return found


def read_cards(folder: Path, manifest: SelectionManifest, places: Mapping[str, Place]) -> dict[str, Card]:
    """Return the numbers of each document; IntegrityError if its copies are not those of its draw."""
    theta, found = read_theta(folder), dict[str, Card]()
    for split, ids in _by_split(places).items():
        table = read_part(folder, split)
        for doc_id in ids:
            found[doc_id] = _card(folder, manifest, theta, table, places[doc_id].row)
    return {i: found[i] for i in places}


def _by_split(places: Mapping[str, Place]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for doc_id, place in places.items():
        found.setdefault(place.split, []).append(doc_id)
    return dict(sorted(found.items()))


def _card(
    folder: Path, manifest: SelectionManifest, theta: Theta | None, table: SelectionTable, row: int
) -> Card:
    m, copies, excluded = int(table.domain[row]), int(table.copies[row]), table.excluded[row].as_py()
    one = slice(row, row + 1)
    factor, nan = manifest.info.factors[m], float("nan")
    expected = nan if excluded else float(table.expected[row])
    if not excluded:
        again = drawn(table.expected[one], table.keys[one], np.array([factor]), seed=manifest.info.seed)
        if int(again[0]) != copies:
            raise IntegrityError(
                f"document {table.doc_id[row].as_py()!r}: drawn again it has {int(again[0])} copies, but "
                f"{folder / SELECTION / part_name(int(table.split[row]))} has {copies}; was a file of the "
                "run changed? Run `quadmix verify` on it"
            )
    return Card(
        state="excluded" if excluded else "kept" if copies else "not drawn",
        domain=table.info.domains[m],
        tokens=int(table.tokens[row]),
        scores=_scores(folder, theta, table, row),
        merged=float(table.merged[row]),
        rank_low=float(table.ranks.low[row]),
        rank_high=float(table.ranks.high[row]),
        cutoff=float(theta.cutoff[m]) if theta else nan,
        floor=float(theta.floor[m] * theta.scale[m]) if theta else nan,
        expected=expected,
        uniform=nan if excluded else float(keyed_uniform(manifest.info.seed, table.keys[one], "copies")[0]),
        fraction=expected - float(np.floor(expected)),
        factor=nan if excluded else factor,
        copies=copies,
        excluded=excluded,
    )


def _scores(folder: Path, theta: Theta | None, table: SelectionTable, row: int) -> tuple[CardScore, ...]:
    """Return every criterion as its source delivered it, normalised and weighted."""
    split, place = int(table.split[row]), int(table.row_in_split[row])
    path = folder / "annotations" / part_name(split)
    names = [c.name for c in table.info.criteria]
    given = read_slice(path, place, place + 1, columns=[f"score:{n}" for n in names]).to_pylist()[0]
    norms = table.norms[row]
    known = ~np.isnan(norms)
    weights = theta.weights[int(table.domain[row])] if theta else np.full(len(names), np.nan)
    used = np.where(known, weights, 0.0) if theta else weights
    if theta:
        used = used / used.sum() if used.sum() > 0 else known / max(1, known.sum())
    return tuple(
        CardScore(
            name=criterion.name,
            declared=criterion.declared,
            delivered=_float(given[f"score:{criterion.name}"]),
            normalised=float(norms[n]),
            weight=float(weights[n]),
            used=float(used[n]),
        )
        for n, criterion in enumerate(table.info.criteria)
    )


def _float(value: object) -> float:
    return float("nan") if value is None else float(value)  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------- texts
def read_texts(
    folder: Path, places: Mapping[str, Place], *, characters: int = TEXT_CHARACTERS
) -> dict[str, Text]:
    """Return the beginning of each document's text, at most `characters` of it.

    samples.parquet is asked first; of the user's files a split is read up to the last of its documents. A
    file that is gone or has changed gives a note instead of a text, as a diff is possible without it.
    """
    found = _sampled(folder, places)
    path = folder / "corpus" / "manifest.json"
    if not path.is_file():
        return {i: found.get(i, Text(text=None, note="the run has no corpus/manifest.json")) for i in places}
    corpus = read_value(path, Corpus)
    wanted = {i: place for i, place in places.items() if i not in found}
    for split, ids in _by_split(wanted).items():
        rows = {wanted[i].row: i for i in ids}
        try:
            found |= _read_split(corpus, split, rows, characters)
        except (QuadmixError, OSError) as error:
            found |= {i: Text(text=None, note=f"the text could not be read: {error}") for i in ids}
    return {i: found[i] for i in places}


def _sampled(folder: Path, places: Mapping[str, Place]) -> dict[str, Text]:
    path = folder / SAMPLES
    if not path.is_file() or "text" not in table_columns(path):
        return {}
    table = read_table(path, columns=["doc_id", "text"])
    pairs = zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)
    # samples hold the beginning alone, so a text as long as that has an unknown length
    return {i: Text(text=t, characters=len(t)) for i, t in pairs if i in places and t}


def _read_split(corpus: Corpus, number: int, rows: Mapping[int, str], characters: int) -> dict[str, Text]:
    split = next(s for s in corpus.splits if s.index == number)
    known = next(f for f in corpus.files if f.path == split.path)
    if file_size(split.path) != known.bytes:
        note = f"the text could not be read: {split.path} has changed since the run"
        return {i: Text(text=None, note=note) for i in rows.values()}
    found: dict[str, Text] = {}
    start = 0
    for batch in read_documents(corpus, split, columns=()):
        for row in sorted(r for r in rows if start <= r < start + len(batch.text)):
            doc_id, text = rows[row], batch.text[row - start]
            if batch.doc_id[row - start] != doc_id:
                note = f"row {row} of {split.path} is another document now"
                found[doc_id] = Text(text=None, note=note)
            else:
                found[doc_id] = Text(text=text[:characters], characters=len(text))
        start += len(batch.text)
        if len(found) == len(rows):
            break
    return found
