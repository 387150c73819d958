"""Which documents are compared: pairs for training and for validation, that never share a source.

In: ids, sources and ratings of D documents. Out: `DrawnPairs`. Sources are split first, by a hash; pairs are
then drawn inside each part: a share of them with sides from adjacent quantile bins of the
mean z-scored rating, which are hard to tell apart, the rest uniformly. Uniform means over free places: each
document has `max_uses` of them, all places are shuffled, and neighbours become a pair. Documents are first
put into an order by a hash of their ids, so the order in which they are given changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError, IntegrityError, RecipeError, ScoreError
from quadmix.raters.table import Pairs, Rows, Texts
from quadmix.rng import doc_keys, keyed_uniform, stream
from quadmix.types import Floats, Ints

MAX_USES, BINS, HELD = 4, 10, 0.1
_IDLE, _YIELD = 3, 0.001  # rounds in a row that give less than this of their proposals: shuffling is over
_FEW = 1_000  # documents among which every pair is tried in the end
_ODD_1, _ODD_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
Keys = NDArray[np.uint64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnPairs:
    """P pairs of D documents; all fields of pairs are (P,).

    a, b: rows of the documents as they were given. held: a pair of the validation part. stratified: drawn
    from adjacent bins. asked: pairs asked for; `len` says how many there are. documents, held_documents: that
    could be drawn, of all and of the validation part. unrated: documents left out, no rater rates them.
    """

    a: Rows
    b: Rows
    held: Bools
    stratified: Bools
    asked: int
    documents: int
    held_documents: int
    unrated: int

    def __len__(self) -> int:
        return len(self.a)


@dataclass(slots=True, eq=False)
class _Part:
    """The n documents of one part while pairs are drawn. source: (n,) hash. left: (n,) uses that are free.
    taken: (K,) codes of the pairs that there are."""

    source: Keys
    left: Ints
    taken: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def code(self, pairs: Ints) -> Ints:
        """Return one number per pair (K, 2), the same for either order of its sides."""
        return pairs.min(axis=1) * len(self.left) + pairs.max(axis=1)

    def accept(self, pairs: Ints, need: int) -> Ints:
        """Take the first `need` of proposed pairs (K, 2) that are new and of two sources; return them."""
        code = self.code(pairs)
        new = np.zeros(len(code), np.bool_)
        new[np.unique(code, return_index=True)[1]] = True
        new &= self.source[pairs[:, 0]] != self.source[pairs[:, 1]]
        new &= ~np.isin(code, self.taken)
        chosen = np.flatnonzero(new)[:need]
        self.taken = np.concatenate([self.taken, code[chosen]])
        self.left = self.left - np.bincount(pairs[chosen].reshape(-1), minlength=len(self.left))
        return pairs[chosen]


Propose = Callable[[_Part, int, np.random.Generator], Ints]


def draw_pairs(
    ids: Sequence[str],
    source: Sequence[str],
    ratings: NDArray[Any],
    count: int,
    *,
    seed: int,
    max_uses: int = MAX_USES,
    stratified: float = 0.5,
    bins: int = BINS,
    held_share: float = HELD,
) -> DrawnPairs:
    """Draw `count` pairs of D documents, or as many as there are.

    ids: (D,), distinct. source: (D,), documents of one source, or of one group of sources that share text,
    are never a pair and stay in one part.
    ratings: (D, R), larger = better, NaN = abstains; with R = 0 (a judge alone) all pairs are uniform.
    stratified: share of pairs from adjacent bins; what these cannot give is drawn uniformly. bins: quantile
    bins per part. held_share: share of sources held out; their part gets its share of the pairs by documents.
    No pair stands there twice in either order. If fewer than `count` come back, none could be added among
    1,000 documents of the part that have uses left; other choices from the start might have given more.

    Raises InputError for ids that repeat, RecipeError for settings outside their range, ScoreError for
    ratings that are infinite or of another shape.
    """
    _check_settings(count, max_uses, stratified, bins, held_share)
    if ratings.ndim != 2 or not len(ids) == len(source) == len(ratings):
        raise ScoreError(
            f"{len(ids)} ids and {len(source)} sources for ratings of shape {ratings.shape}; expected (D, R)"
        )
    keys = doc_keys(ids)
    order = _canonical(ids, keys)
    values = ratings[order]
    known = ~np.isnan(values).all(axis=1) if values.shape[1] else np.ones(len(order), np.bool_)
    order, values = order[known], values[known]
    keys, sources = keys[order], doc_keys(source)[order]
    quality = mean_z(values)
    held = held_out(sources, held_share, seed)
    asked_held = round(count * held.mean()) if len(held) else 0
    found: list[Ints] = []
    for name, rows, asked in (
        ("train", np.flatnonzero(~held), count - asked_held),
        ("held", np.flatnonzero(held), asked_held),
    ):
        part = _Part(sources[rows], np.full(len(rows), max_uses, np.int64))
        bin_of = _bins(quality[rows], keys[rows], bins) if values.shape[1] else np.zeros(len(rows), np.int16)
        hard, plain = _draw_part(part, bin_of, asked, round(asked * stratified), stream(seed, "pairs", name))
        for pairs, is_hard in ((hard, 1), (plain, 0)):
            found.append(np.column_stack([rows[pairs], np.full(len(pairs), is_hard)]))
    a, b, is_hard = _mixed(np.concatenate(found), keys, seed)
    return DrawnPairs(
        a=order[a].astype(np.int32), b=order[b].astype(np.int32), held=held[a], stratified=is_hard,
        asked=count, documents=len(order), held_documents=int(held.sum()), unrated=int((~known).sum()),
    )  # fmt: skip


def held_out(source: Keys | Sequence[str], share: float, seed: int) -> Bools:
    """Return (D,), which sources belong to the validation part: a hash of seed and source below `share`."""
    return keyed_uniform(seed, source, "held") < share


def mean_z(ratings: NDArray[Any]) -> Floats:
    """Return (D,), the mean of the z-scores of the raters (D, R) that rate a document, larger = better.

    A rater that gives all the same rating orders nothing and is left out. A document that none of the others
    rates has 0, the mean of all, and NaN if no rater at all rates it. ScoreError for an infinite rating.
    """
    values = np.asarray(ratings, np.float64)
    infinite = np.isinf(values).sum(axis=0)
    if infinite.any():
        column = int(infinite.argmax())
        raise ScoreError(
            f"the rater of column {column} gives {infinite[column]} infinite ratings, expected finite "
            "numbers or NaN; clip them, or use the score before its logarithm"
        )
    total, raters = np.zeros(len(values)), np.zeros(len(values))
    for column in values.T:
        known = ~np.isnan(column)
        if known.any() and (spread := column[known].std()) > 0:
            total[known] += (column[known] - column[known].mean()) / spread
            raters += known
    rated = ~np.isnan(values).all(axis=1) if values.shape[1] else np.zeros(len(values), np.bool_)
    return np.where(rated, total / np.maximum(raters, 1), np.nan)


def check_split(texts: Texts, pairs: Pairs) -> None:
    """Raise IntegrityError naming a source whose texts stand in pairs of training and of validation, or a
    translation with another source than its original (which would hide such a source)."""
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    for row, origin in enumerate(texts.origin):
        if origin in place and texts.source[place[origin]] != texts.source[row]:
            raise IntegrityError(
                f"text {texts.ids[row]!r} has source {texts.source[row]!r}, its original {origin!r} has "
                f"{texts.source[place[origin]]!r}; expected one source for all translations of a document"
            )
    parts: list[set[str]] = []
    for held in (False, True):
        rows = np.unique(np.concatenate([pairs.a[pairs.held == held], pairs.b[pairs.held == held]]))
        parts.append({texts.source[row] for row in rows.tolist()})
    both = parts[0] & parts[1]
    if both:
        raise IntegrityError(
            f"source {min(both)!r} stands in pairs of training and of validation ({len(both)} such sources); "
            "expected the split by source, draw the pairs anew"
        )


def _canonical(ids: Sequence[str], keys: Keys) -> Ints:
    """Return the rows in the order of the ids' hashes, whatever order they are given in."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    for i in same.tolist():
        if ids[order[i]] == ids[order[i + 1]]:
            raise InputError(f"document id {ids[order[i]]!r} stands there twice, expected distinct ids")
    if len(same):  # two ids with one hash: as rare as 1 in 30 million for a million documents
        return np.array(sorted(range(len(ids)), key=lambda i: (int(keys[i]), ids[i])), np.int64)
    return order


def _bins(quality: Floats, keys: Keys, bins: int) -> NDArray[np.int16]:
    """Return (n,) the quantile bin of each document, equally full; ties are split by the ids' hashes."""
    rank = np.empty(len(quality), np.int64)
    rank[np.lexsort((keys, quality))] = np.arange(len(quality))
    return (rank * min(bins, len(quality)) // max(len(quality), 1)).astype(np.int16)


def _draw_part(
    part: _Part, bin_of: NDArray[np.int16], asked: int, hard: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Return the stratified and the uniform pairs of one part, (K, 2) places in it each."""
    found: list[Ints] = []
    if len(bin_of) and bin_of.max() > 0:
        found = _rounds(part, lambda p, need, r: _adjacent(p, bin_of, need, r), hard, rng)
    stratified = np.concatenate([np.empty((0, 2), np.int64), *found])
    plain = _rounds(part, _uniform, asked - len(stratified), rng)
    short = asked - len(stratified) - sum(map(len, plain))
    if short:
        plain.append(_last(part, short, rng))
    return stratified, np.concatenate([np.empty((0, 2), np.int64), *plain])


def _rounds(part: _Part, propose: Propose, need: int, rng: np.random.Generator) -> list[Ints]:
    found: list[Ints] = []
    idle = 0
    while need > 0 and idle < _IDLE and np.count_nonzero(part.left) > 1:
        proposed = propose(part, need, rng)
        found.append(part.accept(proposed, need))
        need -= len(found[-1])
        idle = 0 if len(found[-1]) > _YIELD * len(proposed) else idle + 1
    return found


def _uniform(part: _Part, need: int, rng: np.random.Generator) -> Ints:
    """Propose pairs of shuffled free places; a tenth more than needed, for those that are refused."""
    places = rng.permutation(np.repeat(np.arange(len(part.left)), part.left))
    proposed = min(len(places) // 2, need + need // 10 + 100)
    return places[: 2 * proposed].reshape(-1, 2)


def _adjacent(part: _Part, bin_of: NDArray[np.int16], need: int, rng: np.random.Generator) -> Ints:
    """Propose pairs whose sides lie in bins k and k + 1, equally many for each k as far as places are free.

    In one round a bin offers half of its places, chosen at random, to either neighbour.
    """
    places = rng.permutation(np.repeat(np.arange(len(part.left)), part.left))
    places = places[np.argsort(bin_of[places], kind="stable")]
    last = int(bin_of.max())
    ends = np.searchsorted(bin_of[places], np.arange(last + 2))
    by_bin = [places[start:stop] for start, stop in pairwise(ends.tolist())]
    half = [(len(p) + int(rng.integers(2))) // 2 for p in by_bin]  # the odd place falls to either side
    found: list[Ints] = []
    for k in range(last):
        upward, downward = by_bin[k][half[k] :], by_bin[k + 1][: half[k + 1]]
        size = min(len(upward), len(downward), -(-need // last))
        found.append(np.column_stack([upward[:size], downward[:size]]))
    return rng.permutation(np.concatenate(found), axis=0)


def _last(part: _Part, need: int, rng: np.random.Generator) -> Ints:
    """Take what is still possible among the few documents with free places, one pair after the other."""
    free = np.flatnonzero(part.left)[:_FEW]
    pairs = rng.permutation(free[np.column_stack(np.triu_indices(len(free), 1))], axis=0)
    pairs = pairs[part.source[pairs[:, 0]] != part.source[pairs[:, 1]]]
    pairs = pairs[~np.isin(part.code(pairs), part.taken)]
    left, chosen = part.left.copy(), np.zeros(len(pairs), np.bool_)
    for row in range(len(pairs)):
        i, j = pairs[row].tolist()
        if left[i] and left[j]:
            left[i], left[j], chosen[row] = left[i] - 1, left[j] - 1, True
    return part.accept(pairs[chosen], need)


def _mixed(found: Ints, keys: Keys, seed: int) -> tuple[Ints, Ints, Bools]:
    """Return the sides a and b, and which are stratified, in an order and with sides that hashes decide."""
    low = np.where(keys[found[:, 0]] < keys[found[:, 1]], found[:, 0], found[:, 1])
    high = found[:, 0] + found[:, 1] - low
    with np.errstate(over="ignore"):
        pair = keys[low] * _ODD_1 + keys[high] * _ODD_2
    order = np.argsort(keyed_uniform(seed, pair, "pair-place"), kind="stable")
    swap = keyed_uniform(seed, pair, "pair-sides") < 0.5
    a, b = np.where(swap, high, low), np.where(swap, low, high)
    return a[order], b[order], found[order, 2] == 1


def _check_settings(count: int, max_uses: int, stratified: float, bins: int, held_share: float) -> None:
    if count < 1 or max_uses < 1:
        raise RecipeError(f"{count} pairs with at most {max_uses} per document, expected at least 1 of each")
    if not 0 <= stratified <= 1:
        raise RecipeError(f"stratified is {stratified}, expected a share in [0, 1]")
    if not 2 <= bins <= 1_000:
        raise RecipeError(f"bins is {bins}, expected 2 to 1000")
    if not 0 <= held_share < 1:
        raise RecipeError(f"held_share is {held_share}, expected a share in [0, 1); 0.1 holds out a tenth")
