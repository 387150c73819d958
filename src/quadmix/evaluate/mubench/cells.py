"""What a model says of one task in one mode and language: a log-likelihood per option, kept in one file.

In: `Question`s, a model. Out: a `Cell`, one Parquet file that is whole or absent, from which every estimator
is computed without the model. A file names what it was made from; one of other items or another setting is
scored anew.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.evaluate.mubench.forms import Question
from quadmix.evaluate.mubench.model import CausalModel
from quadmix.evaluate.mubench.packed import Tell, log_likelihoods
from quadmix.evaluate.mubench.pairs import encode_pairs
from quadmix.io.atomic import read_table, value_digest, write_table
from quadmix.types import Floats, Ints

_VERSION = 1
_META = b"quadmix"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """R options of I items. ids: (I,). item: (R,) row of ids; option: (R,) its number in the item.

    log_likelihood, unconditional: (R,) nats; NaN where the option does not fit into the context;
    unconditional (without the prompt) is None where it was not asked for, or a blank is filled in. weights:
    (R,) bytes that acc_bytes divides by. bytes, tokens: (R,) of the scored continuation. cut: (R,) tokens
    that the prompt lost at its beginning. same: have all items one list of options (labels, letters)?
    """

    ids: tuple[str, ...]
    item: Ints
    option: Ints
    log_likelihood: Floats
    unconditional: Floats | None
    weights: Ints
    bytes: Ints
    tokens: Ints
    cut: Ints
    same: bool

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Return (I,): could every option of the item be scored?"""
        values = (
            self.log_likelihood if self.unconditional is None else self.log_likelihood + self.unconditional
        )
        return np.bincount(self.item, weights=np.isnan(values), minlength=len(self.ids)) == 0

    @property
    def cut_ids(self) -> tuple[str, ...]:
        """Return the items whose prompt lost its beginning before an option."""
        return tuple(self.ids[i] for i in np.unique(self.item[self.cut > 0]))

    def table(self, values: Floats) -> Floats:
        """Return values (R,) as (I, K), NaN past the options of an item."""
        wide = np.full((len(self.ids), int(self.option.max(initial=0)) + 1), np.nan)
        wide[self.item, self.option] = values
        return wide


def cell_path(folder: str | Path, task: str, mode: str, language: str) -> Path:
    """Return where the file of a cell lies."""
    return Path(folder, "cells", f"{task}.{mode}.{language}.parquet")


def cell_key(asked: Sequence[Question], made_of: str, *, unconditional: bool) -> str:
    """Return the digest of what a cell is made of. made_of: digest of the model and its setting."""
    return value_digest([_VERSION, made_of, unconditional, [asdict(q) for q in asked]])


def score_cell(
    model: CausalModel,
    asked: Sequence[Question],
    where: str,
    *,
    unconditional: bool,
    tell: Tell | None = None,
) -> Cell:
    """Score every option of the questions. where: task, mode and language, for errors. tell: hears of how
    many pairs are done, in parts (`pair_count` in all)."""
    rows = [(i, c) for i, q in enumerate(asked) for c in range(len(q.choices))]

    def name(index: int) -> str:
        i, option = rows[index % len(rows)]
        return f"{where}, id {asked[i].id!r}, option {option}"

    texts = [(asked[i].contexts[c], asked[i].continuations[c]) for i, c in rows]
    unconditional = unconditional and _varies(asked)
    pairs = [
        replace(pair, fits=pair.fits and asked[i].form != "unfit")
        for pair, (i, _) in zip(encode_pairs(model, texts, name), rows, strict=True)
    ]
    bare = encode_pairs(model, [("", rest) for _, rest in texts], name) if unconditional else []
    found = log_likelihoods(model, [*pairs, *bare], tell)
    return Cell(
        ids=tuple(q.id for q in asked),
        item=np.array([i for i, _ in rows], dtype=np.int64),
        option=np.array([c for _, c in rows], dtype=np.int64),
        log_likelihood=found[: len(rows)],
        unconditional=found[len(rows) :] if unconditional else None,
        weights=np.array([asked[i].weights[c] for i, c in rows], dtype=np.int64),
        bytes=np.array([len(rest.encode()) for _, rest in texts], dtype=np.int64),
        tokens=np.array([len(pair.continuation) for pair in pairs], dtype=np.int64),
        cut=np.array([pair.cut for pair in pairs], dtype=np.int64),
        same=len({q.choices for q in asked}) == 1 and _varies(asked),
    )


def pair_count(asked: Sequence[Question], *, unconditional: bool) -> int:
    """Return how many pairs a cell scores."""
    return sum(len(q.choices) for q in asked) * (2 if unconditional and _varies(asked) else 1)


def _varies(asked: Sequence[Question]) -> bool:
    """Are the options in the continuations? Where they fill a blank before it, it says nothing by itself."""
    return all(q.form == "options" for q in asked)


def write_cell(path: Path, cell: Cell, key: str) -> None:
    """Write a cell, whole or not at all."""
    columns = {
        "id": pa.array([cell.ids[i] for i in cell.item], pa.string()),
        "option": cell.option.astype(np.int16),
        "log_likelihood": cell.log_likelihood,
        "weights": cell.weights.astype(np.int32),
        "bytes": cell.bytes.astype(np.int32),
        "tokens": cell.tokens.astype(np.int32),
        "cut": cell.cut.astype(np.int32),
    }
    if cell.unconditional is not None:
        columns["unconditional"] = cell.unconditional
    facts = orjson.dumps({"key": key, "same": cell.same})
    write_table(path, pa.table(columns).replace_schema_metadata({_META: facts}), dictionary=["id"])


def read_cell(path: Path, key: str) -> Cell | None:
    """Return the cell that was made of `key`; None for a file that is absent or was made of other things."""
    if not path.is_file():
        return None
    table = read_table(path)
    facts = orjson.loads((table.schema.metadata or {}).get(_META, b"{}"))
    if facts.get("key") != key:
        return None
    names: list[str] = table["id"].to_pylist()
    ids = tuple(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(ids)}
    whole = {
        name: table[name].to_numpy().astype(np.int64)
        for name in ("option", "weights", "bytes", "tokens", "cut")
    }
    bare = "unconditional" in table.column_names
    return Cell(
        ids=ids,
        item=np.array([place[name] for name in names], dtype=np.int64),
        log_likelihood=table["log_likelihood"].to_numpy(),
        unconditional=table["unconditional"].to_numpy() if bare else None,
        same=bool(facts["same"]),
        **whole,
    )
