"""Heads trained side by side, and what they say of held pairs compared.

In: vectors, texts, pairs. Out: `HeadComparison`. Every head is trained for all epochs and its last is judged:
to stop early on the pairs that decide would flatter all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.io.atomic import read_value, write_json
from quadmix.raters.arms import HeadData, Judged, World, differences, digest_of, separate_languages
from quadmix.raters.calibration import calibrate
from quadmix.raters.comparing import (
    ARMS,
    GATED,
    LEAST_SEEDS,
    SEPARATE,
    HeadComparison,
    HeldOut,
    LanguageGate,
    check_tail,
    decide,
)
from quadmix.raters.dense import DenseTraining, TrainedHead, gathered, new_head
from quadmix.raters.table import Texts
from quadmix.types import Floats

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What the first POSO head does with the code. domains: domain -> S, how far masking the domain moves
    what its last layer reads, on the texts of the held pairs; {} where the code has none. start: the same of
    the head before training."""

    languages: tuple[LanguageGate, ...] = ()
    domains: dict[str, float] = field(default_factory=dict[str, float])
    start: dict[str, float] = field(default_factory=dict[str, float])


def compare_heads(
    data: HeadData,
    training: DenseTraining | None = None,
    *,
    seeds: int = LEAST_SEEDS,
    arms: Sequence[str] = ARMS,
    tail: Sequence[str],
    store: Path | None = None,
    progress: Progress | None = None,
) -> HeadComparison:
    """Train every head with seeds 0, 1, ... and decide on the held monolingual pairs that prefer a side.

    Where the code has the domain, pairs of one domain alone are judged. store: folder in which results are
    kept, one file for each seed, and gone on from. progress: (heads trained, heads). Raises InputError as
    `train_dense` and `decide`.
    """
    training = replace(training or DenseTraining(), patience=None)
    if unknown := sorted(set(arms) - set(ARMS)):
        raise InputError(f"head {unknown[0]!r} is not one of {', '.join(ARMS)}")
    world = World(data=data, own=separate_languages(data.pairs, data.texts))
    arms = [arm for arm in arms if arm != SEPARATE or world.own]
    judged = judged_pairs(data, tail)
    home = store / digest_of(data, training, arms)[:16] if store else None
    told, gates = Counter(progress=progress, total=seeds * len(arms)), list[Gates]()

    def heard(arm: str, head: TrainedHead) -> None:
        if arm == GATED[0]:
            gates.append(_gates(head, _untrained(data, training), data, judged))
            if home:
                home.mkdir(parents=True, exist_ok=True)
                write_json(home / "gates.json", gates[0])

    found: dict[str, list[Floats]] = {arm: [] for arm in arms}
    for number in range(seeds):
        told.done = number * len(arms)
        one = differences(
            world, judged, arms, training, number, file=home / f"seed-{number}.parquet" if home else None,
            told=told.tell, heard=None if number else heard,
        )  # fmt: skip
        for arm, values in one.items():
            found[arm].append(values.astype(np.float64))
    told.done = told.total
    told.tell()
    if home and (home / "gates.json").is_file():
        gates = [read_value(home / "gates.json", Gates)]
    seen = gates[0] if gates else Gates()
    made = _compared(data.texts, judged, {arm: np.stack(rows) for arm, rows in found.items()}, tail)
    return replace(
        made, across=judged.across, gates=seen.languages, domain_sensitivity=seen.domains,
        domain_start=seen.start,
    )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Counter:
    """Heads that are done, told as they begin."""

    progress: Progress | None
    total: int
    done: int = 0

    def tell(self) -> None:
        """Tell how many are done, and that one more begins."""
        if self.progress:
            self.progress(self.done, self.total)
        self.done += 1


def judged_pairs(data: HeadData, tail: Sequence[str]) -> Judged:
    """Return the pairs that arms are judged on; InputError where none is in the tail, or of one domain."""
    judged = Judged.of(data)
    decided = judged.trained & (judged.pairs.p != 0.5)
    if data.domains is not None and not decided.any():
        raise InputError(
            f"none of {len(judged.pairs) + judged.across:,} held pairs is of two texts of one domain, on "
            "which a code with the domain is judged; make more pairs, name a column of fewer domains, or "
            "take the domain out of encoder.code"
        )
    check_tail(judged.language[decided].tolist(), tail)
    return judged


def held_out(texts: Texts, judged: Judged, found: Mapping[str, Floats], rows: NDArray[np.bool_]) -> HeldOut:
    """Return which of the pairs at `rows` (P,) the arms got right. found: arm -> (S, P) differences."""
    number_of = {source: i for i, source in enumerate(sorted(set(texts.source)))}
    source = np.array([number_of[s] for s in texts.source], np.int64)
    return HeldOut(
        language=tuple(judged.language[rows].tolist()), a=source[judged.pairs.a[rows]],
        b=source[judged.pairs.b[rows]],
        right={arm: judged.right(values)[:, rows] for arm, values in found.items()},
    )  # fmt: skip


def _compared(
    texts: Texts, judged: Judged, found: Mapping[str, Floats], tail: Sequence[str]
) -> HeadComparison:
    decided = judged.pairs.p != 0.5
    made = decide(held_out(texts, judged, found, decided & judged.trained), tail)
    unseen = sorted(set(judged.language[decided & ~judged.trained].tolist()))
    told = tuple(
        replace(arm, unseen={c: _accuracy(judged, found[arm.arm], decided, c) for c in unseen})
        for arm in made.arms
    )
    p, language = judged.pairs.p[judged.trained], judged.language[judged.trained]
    calibration = tuple(
        calibrate(arm, values[:, judged.trained], p, language, tail) for arm, values in found.items()
    )
    return replace(made, arms=told, calibration=calibration)


def _accuracy(judged: Judged, values: Floats, decided: NDArray[np.bool_], code: str) -> float:
    return float(judged.right(values)[:, decided & (judged.language == code)].mean())


def _untrained(data: HeadData, training: DenseTraining) -> TrainedHead:
    """Return the POSO head of the training's seed as it is before the first step."""
    start = gathered(data.vectors, data.texts, data.pairs, data.domains)
    head = new_head(start, replace(training, head=GATED[0]))
    return TrainedHead(head=head, known=start.known, domains=start.domains)


def _gates(head: TrainedHead, start: TrainedHead, data: HeadData, judged: Judged) -> Gates:
    """Return what a head does with the code, on the texts of the held pairs, and what it did at its start."""
    import torch

    rows = np.unique(np.concatenate([judged.pairs.a, judged.pairs.b])).astype(np.int64)
    language = np.array(data.texts.language, dtype=object).astype(str)[rows]
    domain = [data.domains[i] for i in rows.tolist()] if data.domains else None
    given = [
        torch.from_numpy(values)
        for values in (
            data.vectors[rows], head.rows(language.tolist()), head.domain_rows(domain, len(rows))
        )
    ]  # fmt: skip
    factors, before = _factors(head), _factors(start)
    if factors is None or before is None:
        return Gates()
    texts, found = head.head.texts.numpy(), list[LanguageGate]()
    largest = 1 + int(np.nanargmax(texts[1:]))
    for code in sorted(set(judged.language[judged.trained].tolist())):
        row = head.known.index(code) + 1
        part = [values[torch.from_numpy(language == code)] for values in given]
        found.append(
            LanguageGate(
                language=code,
                texts=int(texts[row]),
                sensitivity=head.head.sensitivity(*part),
                gate=float(factors[row].mean()),
                spread=float(factors[row].std()),
                distance=_distance(factors, row, largest),
                start_sensitivity=start.head.sensitivity(*part),
                start_distance=_distance(before, row, largest),
            )
        )
    masked: tuple[dict[str, float], dict[str, float]] = {}, {}
    for place, name in enumerate(head.domains, start=1):
        part = [values[given[2] == place] for values in given]
        if len(part[0]):
            for told, one in zip(masked, (head, start), strict=True):
                told[name] = one.head.sensitivity(*part, of="domain")
    languages = tuple(sorted(found, key=lambda g: (-g.texts, g.language)))
    return Gates(languages=languages, domains=masked[0], start=masked[1])


def _factors(head: TrainedHead) -> Floats | None:
    found = head.head.factors()
    return None if found is None else found.numpy().astype(np.float64)


def _distance(factors: Floats, row: int, largest: int) -> float:
    return float(np.abs(factors[row] - factors[largest]).mean() / factors[largest].mean())
