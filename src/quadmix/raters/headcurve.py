"""The curve over labels: what sharing, gates, and a head of its own are worth to a language with few pairs.

In: what heads are trained on, the sizes. Out: `HeadCurve`. With a folder every point and seed is one file
there, and a killed call repeats the heads of one of them at most.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quadmix.errors import InputError
from quadmix.raters.arms import HeadData, World, differences, digest_of, separate_languages
from quadmix.raters.comparing import LEAST_SEEDS, SEPARATE, CurvePoint, HeadCurve, tail_gains
from quadmix.raters.dense import DenseTraining
from quadmix.raters.headruns import Counter, Progress, held_out, judged_pairs
from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs, Texts
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints

CURVE_ARMS = ("plain", "concat", "znorm", "poso", SEPARATE)


def label_curve(
    data: HeadData,
    training: DenseTraining | None = None,
    *,
    sizes: Sequence[int],
    tail: Sequence[str],
    seeds: int = LEAST_SEEDS,
    store: Path | None = None,
    progress: Progress | None = None,
) -> HeadCurve:
    """Train the arms of the curve with at most so many labelled pairs of each tail language, size by size.

    Which pairs are kept is drawn anew for each seed, the same for all arms; the languages that are not of the
    tail keep theirs, and the held pairs are the same everywhere. A tail language has a head of its own
    (separate) from its first monolingual pair on, trained for as many steps as the shared ones. Everything
    else as `compare_heads`.
    """
    training = replace(training or DenseTraining(), patience=None)
    pairs, texts = data.pairs, data.texts
    judged, kept = judged_pairs(data, tail), _distinct(data, tail, sizes, training.seed)
    told = Counter(progress=progress, total=len(kept) * seeds * len(CURVE_ARMS))
    decided = judged.trained & (judged.pairs.p != 0.5)
    points = list[CurvePoint]()
    for place, size in enumerate(kept):
        found: dict[str, list[Floats]] = {arm: [] for arm in CURVE_ARMS}
        counts = list[int]()
        for number in range(seeds):
            told.done = (place * seeds + number) * len(CURVE_ARMS)
            few = limited(pairs, texts, tail, size, seed=training.seed + number)
            counts += labelled_pairs(few, texts, tail).values()
            own = {c: p for c, p in separate_languages(few, texts, least=1).items() if c in tail}
            world = World(data=replace(data, pairs=few), own=own)
            name = f"{digest_of(world.data, training, (*CURVE_ARMS, *tail))[:16]}-{number}.parquet"
            one = differences(
                world, judged, CURVE_ARMS, training, number,
                file=store / f"pairs-{size}" / name if store else None, told=told.tell,
            )  # fmt: skip
            for arm, values in one.items():
                found[arm].append(values.astype(np.float64))
        held = held_out(texts, judged, {arm: np.stack(rows) for arm, rows in found.items()}, decided)
        points.append(CurvePoint(size=size, least=min(counts), most=max(counts), arms=tail_gains(held, tail)))
    told.done = told.total
    told.tell()
    inside = np.isin(judged.language[decided], list(tail))
    return HeadCurve(
        tail=tuple(tail),
        seeds=seeds,
        pairs=int(inside.sum()),
        points=tuple(points),
        left_out=tuple(sorted(set(sizes) - set(kept))),
    )


def _distinct(data: HeadData, tail: Sequence[str], sizes: Sequence[int], seed: int) -> list[int]:
    """Return the sizes, ascending, without those at which there are no more pairs than at the one before."""
    kept = dict[int, int]()
    for size in sorted(set(sizes)):
        kept.setdefault(len(limited(data.pairs, data.texts, tail, size, seed=seed)), size)
    return list(kept.values())


def labelled_pairs(pairs: Pairs, texts: Texts, languages: Sequence[str]) -> dict[str, int]:
    """Return the training pairs of each language that votes were given to: monolingual ones, ties too."""
    rows = pairs.a[~pairs.held & (pairs.kind == MONO)].tolist()
    own = [texts.language[i] for i in rows]
    return {code: own.count(code) for code in languages}


def limited(pairs: Pairs, texts: Texts, tail: Sequence[str], size: int, *, seed: int) -> Pairs:
    """Return the pairs with at most `size` labelled training pairs (`labelled_pairs`) of each tail language.

    They come in an order drawn by their texts' ids, the first are kept. Cross-lingual pairs of a tail
    language are kept in the same share as its labelled ones, in the smaller share where both sides are of
    the tail. Parallel pairs stay: they carry no label.
    """
    if size < 1:
        raise InputError(f"a point of the curve is {size}, expected at least 1 training pair per language")
    had = labelled_pairs(pairs, texts, tail)
    sides = [
        {texts.language[a], texts.language[b]} & had.keys() for a, b in zip(pairs.a, pairs.b, strict=True)
    ]
    touched: Ints = np.array(
        [i for i, s in enumerate(sides) if s and not pairs.held[i] and pairs.kind[i] != PARALLEL], np.int64
    )
    keys = [f"{texts.ids[pairs.a[i]]}\x1f{texts.ids[pairs.b[i]]}" for i in touched.tolist()]
    drawn, room = keyed_uniform(seed, keys, "curve"), dict.fromkeys(tail, size)
    kept = np.ones(len(pairs), np.bool_)
    for place in np.argsort(drawn, kind="stable").tolist():
        row = int(touched[place])
        if pairs.kind[row] == CROSS:
            kept[row] = all(drawn[place] * had[code] < size for code in sides[row])
            continue
        (code,) = sides[row]
        kept[row] = room[code] > 0
        room[code] -= 1
    return pairs.take(kept)
