"""The language of every document that selectors choose from: one pass over the corpus, piece by piece.

In: a corpus with a language column, its annotations. Out: `Languages` in the rows of the annotations. The
annotations hold no language, so rows are joined by the key of the document's id. Each piece commits a part of
its own, which is kept: the same command again, after a kill or not, reads only what is not there yet.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.columns import column_values
from quadmix.errors import InputError
from quadmix.evaluate.languages import Languages
from quadmix.evaluate.selectors import NEEDS
from quadmix.io.atomic import read_table, value_digest, write_table
from quadmix.materialise.gather import MAX_LANGUAGES, plain_name
from quadmix.pipeline.folder import StageNotes
from quadmix.pipeline.importance import split_rows
from quadmix.pipeline.ladder import rung_plans
from quadmix.proxy.pool import Mapper, wanted_batches
from quadmix.recipe import Baseline, Recipe
from quadmix.types import Annotations, Corpus, Ints, Split

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """One split's part of the pass, written to `file`. rows: (n,) in the annotations. keys: (n,) uint64."""

    corpus: Corpus
    split: Split
    rows: Ints
    keys: NDArray[np.uint64]
    column: str
    file: str


def language_baselines(recipe: Recipe) -> dict[Baseline, str]:
    """Return the baselines of the recipe that select language by language, each with a rung that has it."""
    plans = rung_plans(recipe.evaluate)
    return {n: plan.name for plan in reversed(plans) for n in plan.baselines if NEEDS.get(n) == "languages"}


def check_language_column(recipe: Recipe, corpus: Corpus) -> None:
    """Raise InputError where a rung has a baseline per language and the corpus says no language: before
    anything is spent, since nothing that is computed changes it."""
    asked = language_baselines(recipe)
    if not recipe.evaluate.enabled or not asked or corpus.columns.language is not None:
        return
    name, rung = next(iter(asked.items()))
    raise InputError(
        f"baseline {name!r} (rung {rung!r}) selects language by language, and the corpus has no column of "
        "strings called language or lang; name the column in corpus.columns.language, or leave out "
        f"{', '.join(asked)}"
    )


def document_languages(
    corpus: Corpus, table: Annotations, folder: str | Path, *, mapper: Mapper
) -> Languages:
    """Return the language of every row of `table`, as the report names it; "" where a document says none.

    The parts stand in a folder of `folder` that is named after corpus, rows and column.
    InputError for a column of more than MAX_LANGUAGES values, IntegrityError if a file changed since it was
    annotated.
    """
    column = corpus.columns.language
    assert column is not None  # see check_language_column
    rows = [hashlib.sha256(a.tobytes()).hexdigest() for a in (table.keys, table.split)]
    home = Path(folder, value_digest([_VERSION, corpus.digest, rows, column])[:16])
    pieces = [
        _Piece(
            corpus=corpus, split=split, rows=mine, keys=table.keys[mine], column=column,
            file=str(home / f"part-{split.index:05d}.parquet"),
        )
        for split, mine in split_rows(corpus, table)
    ]  # fmt: skip
    mapper(_read_piece, [piece for piece in pieces if not Path(piece.file).exists()])
    values = pa.concat_tables([read_table(piece.file) for piece in pieces])["language"]
    found = values.dictionary_encode().combine_chunks()
    names = found.dictionary.to_pylist()
    if len(names) > MAX_LANGUAGES:
        raise InputError(
            f"the column {column!r} has {len(names):,} values, more than {MAX_LANGUAGES}, which are not "
            "languages; name another one in corpus.columns.language"
        )
    ordered = sorted(names)
    place = np.array([ordered.index(name) for name in names], np.int32)
    code = np.empty(len(table), np.int32)
    code[np.concatenate([piece.rows for piece in pieces])] = place[found.indices.to_numpy()]
    return Languages(code=code, names=tuple(ordered))


def language_notes(languages: Languages, column: str, notes: StageNotes) -> None:
    """Say what the baselines per language work on: documents per language, and those that say none."""
    count = np.bincount(languages.code, minlength=len(languages.names)).tolist()
    told = dict(zip(languages.names, count, strict=True))
    notes.facts["languages"] = {"column": column, "documents": dict(told)}
    if none := told.pop("", 0):
        notes.warnings.append(
            f"{none:,} of {len(languages.code):,} documents say no language in the column {column!r}; the "
            "baselines per language take them for a language of their own"
        )
    if len(told) < 2:
        notes.warnings.append(
            f"the column {column!r} names {len(told)} language{'s' * (len(told) != 1)}: the baselines per "
            "language are hardly others than those over the whole corpus"
        )


def _read_piece(piece: _Piece) -> int:
    """Write the languages of one piece, in the order of its keys; return its documents."""
    names = [""] * len(piece.keys)
    for found in wanted_batches(piece.corpus, piece.split, piece.keys, columns=(piece.column,)):
        values = column_values(found.batch.rows, piece.column)
        for place, index in zip(found.place.tolist(), found.index.tolist(), strict=True):
            names[place] = plain_name(values[index])
    write_table(piece.file, pa.table({"language": pa.array(names, pa.string())}))
    return len(names)
