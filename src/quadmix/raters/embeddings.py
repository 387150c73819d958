"""Vectors of texts from a frozen encoder, cached on disk so that no text is encoded twice.

In: `Texts`, a placed embedding card. Out: `Vectors` (D, H). A vector belongs to what the model reads: its key
is the hash of the text as the card prepares it, in a folder named by the digest of the model's files, of the
card's input settings and of the device and number format that `Settings` mean here. The same text under
another id, in another language column or in a later call is the same key. Of a text that is read in several
windows the vectors of these are kept, too: a head scores each (`rated.VectorModel`).

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

from quadmix.annotate.models.base import Placed, Settings, WindowModel, Windows, mean_of_windows
from quadmix.annotate.models.devices import NEURAL, resolved
from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.rater import check_text_alone, prepare_text
from quadmix.annotate.models.rater_head import HeadWeights
from quadmix.errors import InputError
from quadmix.io.atomic import read_table, sweep, value_digest, write_json, write_table
from quadmix.io.lease import lease
from quadmix.raters.table import Texts
from quadmix.types import Floats, Ints

SHARD = 1024  # texts that a killed call may have to encode again; four chunks of the engine
PASSING = "out_of_memory"  # another call, with other settings, may succeed
Progress = Callable[[int, int], None]
Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """values: (D, H) float32, NaN rows where there is no vector. windows: (W, H) float32 of the texts that
    are read in several, weights: (W,) and counts: (D,), 0 for the other texts, as in `Windows`. known: (D,)
    bool, has the text a vector? missing: reason -> texts without one. encoded: texts that this call gave to
    the encoder; distinct: texts that differ in what the model reads."""

    values: Numbers
    windows: Numbers
    weights: Floats
    counts: Ints
    known: NDArray[np.bool_]
    missing: dict[str, int]
    encoded: int
    distinct: int

    def scores(self, head: HeadWeights, languages: Ints, domains: Ints | None = None) -> Floats:
        """Return (D,) float64 the scores that a card of this head gives, NaN where there is no vector: of a
        text of several windows the mean of theirs. languages, domains: (D,) as in `HeadWeights.scores`."""
        scores = head.scores(self.values, languages, domains).astype(np.float64)
        repeated = None if domains is None else np.repeat(domains, self.counts)
        each = head.scores(self.windows, np.repeat(languages, self.counts), repeated).astype(np.float64)
        means = mean_of_windows(each, self.weights, self.counts)
        return np.where(self.counts > 0, means, scores).astype(np.float32).astype(np.float64)


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
            lost = _encode(todo, store, _encoder(placed, settings), shard, progress)
            held = _reasons(store)
        encoded = len(todo)
    return _gather(keys, store, held | lost, encoded)


def cache_key(placed: Placed, settings: Settings) -> str:
    """Return the name of the folder of a model's vectors; InputError if cuda is asked for and is not here."""
    computing = resolved(settings) if placed.card.family in NEURAL else ()
    return value_digest(["vectors", 2, placed.digest, *computing])


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


def _encoder(placed: Placed, settings: Settings) -> WindowModel:
    model = load_model(placed, settings)
    if not isinstance(model, WindowModel):
        raise InputError(
            f"card {placed.card.name!r} is of the family {placed.card.family}, expected embedding"
        )
    return model


def _encode(
    todo: dict[bytes, str], store: Path, model: WindowModel, shard: int, progress: Progress | None
) -> dict[bytes, str]:
    """Encode and commit shard by shard; return key -> reason of what may be tried again."""
    keys, lost = list(todo), dict[bytes, str]()
    first = max((int(p.stem.rpartition("-")[2]) + 1 for p in _shards(store)), default=0)
    for number, start in enumerate(range(0, len(keys), shard), start=first):
        part = keys[start : start + shard]
        table, reasons = _table(part, list(model.windows([todo[key] for key in part])))
        lost |= {key: reason for key, reason in zip(part, reasons, strict=True) if reason == PASSING}
        write_table(store / f"vectors-{number:06d}.parquet", table, dictionary=["reason"])
        if progress:
            progress(start + len(part), len(keys))
    return lost


def _table(keys: Sequence[bytes], chunks: Sequence[Windows]) -> tuple[pa.Table, list[str]]:
    """Return the rows of a shard, without the texts that may be tried again, and why each text (S,) has no
    vector, "" where it has one. Columns windows (numbers of all windows, one after the other) and weights are
    empty lists where one window is the whole text."""
    reasons = [reason for chunk in chunks for reason in chunk.reasons]
    vectors = np.concatenate([chunk.rows for chunk in chunks])
    windows, weights = list[Numbers](), list[Floats]()
    for chunk in chunks:
        ends = np.cumsum(chunk.counts)
        for end, count, reason in zip(ends.tolist(), chunk.counts.tolist(), chunk.reasons, strict=True):
            own = slice(end - count, end) if count > 1 and not reason else slice(0)
            windows.append(chunk.values[own].ravel())
            weights.append(chunk.weights[own])
    rows = [i for i, reason in enumerate(reasons) if reason != PASSING]
    columns = {
        "key": pa.array([keys[i] for i in rows], pa.binary(16)),
        "reason": pa.array([reasons[i] for i in rows], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].reshape(-1)), vectors.shape[1]),
        "windows": pa.array([windows[i] for i in rows], pa.list_(pa.float32())),
        "weights": pa.array([weights[i] for i in rows], pa.list_(pa.float64())),
    }
    return pa.table(columns), reasons


def _gather(keys: list[bytes], store: Path, reasons: dict[bytes, str], encoded: int) -> Vectors:
    """Return the vectors in the order of the texts; every shard is read once, one is in memory at a time."""
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    values = np.empty((len(keys), 0), np.float32)
    windows, weights = [np.empty(0, np.float32)] * len(keys), [np.empty(0)] * len(keys)
    for path in _shards(store):
        here = [row for row in enumerate(read_table(path, ["key"])["key"].to_pylist()) if row[1] in rows]
        if not here and values.shape[1]:
            continue
        read = read_table(path, ["vector", "windows", "weights"])
        vectors = read["vector"].combine_chunks()
        width = vectors.type.list_size
        if not values.shape[1]:
            values = np.full((len(keys), width), np.nan, np.float32)
        table = vectors.values.to_numpy(zero_copy_only=False).reshape(-1, width)
        own: list[list[float]] = read["weights"].to_pylist()
        for place, key in here:
            values[rows[key]] = table[place]
            for row in rows[key] if own[place] else ():
                windows[row] = read["windows"][place].values.to_numpy()
                weights[row] = np.array(own[place])
    counts = np.array([len(row) for row in weights], np.int64)
    every = np.concatenate([np.empty(0, np.float32), *windows]).reshape(int(counts.sum()), values.shape[1])
    missing = Counter(reasons[key] for key in keys if reasons[key])
    known = np.array([not reasons[key] for key in keys], np.bool_)
    return Vectors(
        values=values, windows=every, weights=np.concatenate([np.empty(0), *weights]), counts=counts,
        known=known, missing=dict(sorted(missing.items())), encoded=encoded, distinct=len(rows),
    )  # fmt: skip
