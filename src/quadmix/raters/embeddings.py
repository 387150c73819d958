"""Vectors of texts from a frozen encoder, cached on disk so that no text is encoded twice.

In: `Texts`, a placed embedding card. Out: `Vectors` (D, H). A vector belongs to what the model reads: its key
is the hash of the text as the card prepares it, in a folder named by the digest of the model's files, of the
card's input settings and of the device and number format that `Settings` mean here. The same text under
another id, in another language column or in a later call is the same key.

New keys are encoded in the order of their hashes, `SHARD` at a time, and each shard is committed by a rename,
so that a killed call loses one shard at most. The vectors of a set of texts that are encoded together do not
depend on the order of its rows; beside other texts they may differ by float rounding (`models/batches.py`).
A text without a vector is remembered with its reason, except where memory ran out: that may change.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed, Settings, TextModel
from quadmix.annotate.models.devices import NEURAL, resolved
from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.rater import check_text_alone, prepare_text
from quadmix.errors import InputError
from quadmix.io.atomic import read_table, sweep, value_digest, write_json, write_table
from quadmix.io.lease import lease
from quadmix.raters.table import Texts

SHARD = 1024  # texts that a killed call may have to encode again; four chunks of the engine
PASSING = "out_of_memory"  # another call, with other settings, may succeed
Progress = Callable[[int, int], None]
Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """values: (D, H) float32, NaN rows where there is no vector. known: (D,) bool, has the text one?
    missing: reason -> texts without one. encoded: texts that this call gave to the encoder; distinct: texts
    that differ in what the model reads."""

    values: Numbers
    known: NDArray[np.bool_]
    missing: dict[str, int]
    encoded: int
    distinct: int


def embed(
    texts: Texts,
    placed: Placed,
    settings: Settings,
    folder: Path,
    progress: Progress | None = None,
    *,
    shard: int = SHARD,
) -> Vectors:
    """Return the vectors of the texts; only those that `folder` does not hold yet are encoded.

    progress: told (texts encoded, texts to encode). shard: texts per committed file.
    Raises InputError for a card that is no embedding or whose template names columns, LeaseError while
    another process encodes with the same model into the same folder, IntegrityError for a damaged shard.
    """
    if placed.card.role != "embedding":
        raise InputError(
            f"card {placed.card.name!r} is for {placed.card.role}, expected one for embedding; `quadmix "
            "raters list` names them"
        )
    check_text_alone(placed.card)
    keys, prepared = _keys(texts, placed)
    store = folder / cache_key(placed, settings)
    held = _reasons(store)
    lost: dict[bytes, str] = {}
    encoded = 0
    if prepared.keys() - held.keys():
        with lease(store):
            held = _reasons(store)  # another process may have finished meanwhile
            sweep(store, "vectors-*.parquet")
            _describe(store, placed, settings)
            todo = {key: prepared[key] for key in sorted(prepared.keys() - held.keys())}
            lost = _encode(todo, store, load_model(placed, settings), shard, progress)
            held = _reasons(store)
        encoded = len(todo)
    return _gather(keys, store, held | lost, encoded)


def cache_key(placed: Placed, settings: Settings) -> str:
    """Return the name of the folder of a model's vectors; InputError if cuda is asked for and is not here."""
    computing = resolved(settings) if placed.card.family in NEURAL else ()
    return value_digest(["vectors", placed.digest, *computing])


def _keys(texts: Texts, placed: Placed) -> tuple[list[bytes], dict[bytes, str]]:
    """Return the key of every text (D), and what the model reads by key."""
    read = [prepare_text(placed.card, text, {}) for text in texts.text]
    keys = [xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")) for text in read]
    return keys, dict(zip(keys, read, strict=True))


def _shards(store: Path) -> list[Path]:
    return sorted(store.glob("vectors-*.parquet"))


def _reasons(store: Path) -> dict[bytes, str]:
    """Return what the store holds: key -> why there is no vector, "" where there is one."""
    found: dict[bytes, str] = {}
    for path in _shards(store):
        table = read_table(path, ["key", "reason"])
        found |= zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return found


def _describe(store: Path, placed: Placed, settings: Settings) -> None:
    card = placed.card
    facts = {"card": card.name, "model": card.model, "revision": card.revision, "digest": placed.digest}
    write_json(store / "model.json", facts | {"computed": resolved(settings)})


def _encode(
    todo: dict[bytes, str], store: Path, model: TextModel, shard: int, progress: Progress | None
) -> dict[bytes, str]:
    """Encode and commit shard by shard; return key -> reason of what may be tried again."""
    keys, lost = list(todo), dict[bytes, str]()
    first = max((int(p.stem.rpartition("-")[2]) + 1 for p in _shards(store)), default=0)
    for number, start in enumerate(range(0, len(keys), shard), start=first):
        part = keys[start : start + shard]
        values, reasons = _outputs(model, [todo[key] for key in part])
        kept = np.array([reason != PASSING for reason in reasons], np.bool_)
        lost |= {key: reason for key, reason in zip(part, reasons, strict=True) if reason == PASSING}
        rows = np.flatnonzero(kept).tolist()
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values[kept].reshape(-1)), values.shape[1])
        columns = {
            "key": pa.array([part[i] for i in rows], pa.binary(16)),
            "reason": pa.array([reasons[i] for i in rows], pa.string()),
            "vector": vectors,
        }
        write_table(store / f"vectors-{number:06d}.parquet", pa.table(columns), dictionary=["reason"])
        if progress:
            progress(start + len(part), len(keys))
    return lost


def _outputs(model: TextModel, texts: Sequence[str]) -> tuple[Numbers, list[str]]:
    """Return vectors (S, H) and per text why there is none, "" where there is one.

    A model counts its reasons and does not say which text has which. Where a shard has several, its texts
    without a vector, and no others, are given to it once more, alone.
    """
    given = model.outputs(texts)
    bad = ~np.isfinite(given.values).all(axis=1)
    reasons = [""] * len(texts)
    for row in np.flatnonzero(bad).tolist():
        missing = given.missing if len(given.missing) == 1 else model.outputs([texts[row]]).missing
        reasons[row] = next(iter(missing), "not_finite")
    return np.asarray(given.values, np.float32), reasons


def _gather(keys: list[bytes], store: Path, reasons: dict[bytes, str], encoded: int) -> Vectors:
    """Return the vectors in the order of the texts; every shard is read once, one is in memory at a time."""
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    values = np.empty((len(keys), 0), np.float32)
    for path in _shards(store):
        here = [row for row in enumerate(read_table(path, ["key"])["key"].to_pylist()) if row[1] in rows]
        if not here and values.shape[1]:
            continue
        vectors = read_table(path, ["vector"])["vector"].combine_chunks()
        width = vectors.type.list_size
        if not values.shape[1]:
            values = np.full((len(keys), width), np.nan, np.float32)
        table = vectors.values.to_numpy(zero_copy_only=False).reshape(-1, width)
        for place, key in here:
            values[rows[key]] = table[place]
    missing = Counter(reasons[key] for key in keys if reasons[key])
    known = np.array([not reasons[key] for key in keys], np.bool_)
    return Vectors(
        values=values, known=known, missing=dict(sorted(missing.items())), encoded=encoded, distinct=len(rows)
    )
