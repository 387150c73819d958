"""Which head? Plain, concatenated code, normalised vectors and POSO on the same pairs, and a rule to decide.

In: which held pairs each head got right, for several seeds. Out: accuracies with paired intervals, the chosen
head and why. A head is chosen for languages with few pairs, the tail, against which the others are the head
languages; accuracy is within a language, and its mean over languages gives each the same weight. Where the
code has the domain, pairs of one domain alone count: between domains a head is right by their base rates,
too, which a rank inside the domain never uses.

Rule: POSO is chosen only if the tail gains at least 0.5 points with an interval above 0 against the best of
plain, concat and znorm, the head languages lose at most 0.2 points, and the placebo, POSO with the
codes dealt out at random, pair by pair, gains nothing over plain (at most 0.3 points, and the interval begins
at 0 or below). Else the simplest winner: plain, unless
concat or znorm gains with an interval above 0 and the head languages lose at most 0.2 points; of these two
znorm only if the tail gains with an interval above 0 over concat, too. Nothing but plain is chosen with fewer
than 5 seeds, fewer than 30 tail pairs, 10 sources of their texts, or 2 pairs in one of the tail's languages:
so few do not say how far the estimate varies.

Only languages that are trained on decide. Accuracy on held pairs of others is reported apart.

Beside them stand arms that a rater cannot have, to see what a code is worth: concat-wide, concat with as many
parameters as POSO; balanced, plain with languages drawn by the root of their number of pairs; separate, plain
heads of their own for languages with 500 pairs or more; gate-all, a gate that reads the text, too. If one of
the last three does better than what is chosen, beyond its interval, the reason says so.

Intervals are paired, of the differences pair by pair. Two squared half widths add up: of the seeds (variance
of the S differences over S, by Student's t with S - 1 degrees of freedom) and of the pairs. Pairs that share
a source vary together: to the variances of the languages' means, with n - 1 where a mean of n is taken off,
come the products of such pairs (the dyadic sum of Aronow, Samii and Assenova 2015). Languages with fewer than
10 pairs have one variance, pooled over them (over all languages, if each of these has one pair). Student's t
has the degrees of freedom of Welch and Satterthwaite, at most one less than the sources count, by weight
(Kish). Where no language has two pairs, nothing is known and the interval is -1 to 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.raters.calibration import Calibration
from quadmix.types import Floats, Ints

SIMPLE = ("plain", "concat", "znorm")  # simplest first
GATED = ("poso", "poso-znorm")
WIDE, BALANCED, SEPARATE, GATE_ALL, PLACEBO = "concat-wide", "balanced", "separate", "gate-all", "placebo"
ARMS = (*SIMPLE, *GATED, WIDE, BALANCED, SEPARATE, GATE_ALL, PLACEBO)
LEAST_SEEDS = 5
LEAST_TAIL, LEAST_SOURCES, LEAST_EACH = 30, 10, 2  # pairs of the tail, their sources, pairs of each language
_FEW = 10  # a language with fewer pairs has no residual variance of its own
_CONTROLS = (BALANCED, SEPARATE, GATE_ALL)
GAIN, LOSS, NOTHING = 0.005, 0.002, 0.003


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """The pairs that the heads are judged on. language: (P,) code. a, b: (P,) number of the source of each
    side. right: arm -> (seeds, P) float64 in [0, 1], seeds in one order for all arms."""

    language: tuple[str, ...]
    a: Ints
    b: Ints
    right: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Accuracy of one head minus that of another, with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """Means over seeds. tail, head, every: mean accuracy over the languages of the tail, the others, all;
    worst: over the five worst. Differences to plain, of the tail and of the head languages. unseen: language
    that no training pair has a text in -> accuracy; in none of the means."""

    arm: str
    tail: float
    head: float
    every: float
    worst: float
    languages: dict[str, float]
    tail_gain: Difference
    head_gain: Difference
    unseen: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageGate:
    """A language in a POSO head. texts: that it was trained on, whose bucket is its tier. sensitivity: S, how
    far masking the language moves what the last layer reads, on the texts of the held pairs (POSO, Fig. 1b).
    gate, spread: mean and standard deviation of the factors over the hidden units, 1 = neutral. distance:
    mean |factor - that of the language with most texts| over its mean factor (Fig. 4: small groups use other
    units); factors are those of an unknown domain where the code has domains. start_sensitivity,
    start_distance: of the same head before training, which random codes and a random gate move, too: what
    training has made of the code is how far the others are from these."""

    language: str
    texts: int
    sensitivity: float
    gate: float
    spread: float
    distance: float
    start_sensitivity: float
    start_distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveArm:
    """tail: accuracy, the mean over the tail's languages and the seeds. gain: to plain, 0 for itself."""

    arm: str
    tail: float
    gain: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """size: monolingual training pairs, each with a label, that a tail language may have. least, most: that
    one of them had, over seeds."""

    size: int
    least: int
    most: int
    arms: tuple[CurveArm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadCurve:
    """Where sharing, gating and heads of their own cross (over labelled pairs of the tail's languages).
    left_out: sizes at which no language would have had more pairs than at the size before."""

    tail: tuple[str, ...]
    seeds: int
    pairs: int
    points: tuple[CurvePoint, ...]
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadComparison:
    """chosen: plain, concat, znorm, poso or poso-znorm. why: one sentence with the numbers that decided.
    across: held pairs of two domains, or of unknown ones, that decide nothing since the code has the domain.
    calibration: of every arm. gates: what the first POSO head does with the code, () without such a head.
    domain_sensitivity, domain_start: S of masking the domain, after and before training.
    curve: None where none was asked for."""

    chosen: str
    why: str
    seeds: int
    pairs: int
    tail: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    across: int = 0
    calibration: tuple[Calibration, ...] = ()
    gates: tuple["LanguageGate", ...] = ()
    domain_sensitivity: dict[str, float] = field(default_factory=dict[str, float])
    domain_start: dict[str, float] = field(default_factory=dict[str, float])
    curve: "HeadCurve | None" = None


def decide(held: HeldOut, tail: Sequence[str]) -> HeadComparison:
    """Return the comparison, a pure function of held-out results.

    Raises InputError if plain is missing, arms have different shapes, or a language of the tail has no pair.
    """
    _check(held, tail)
    judge = _Judge.make(held, tail)
    arms = tuple(judge.result(arm) for arm in held.right)
    seeds = len(held.right["plain"])
    chosen, why = _choose(judge, {a.arm: a for a in arms}, seeds)
    why += _beaten(judge, chosen)
    return HeadComparison(
        chosen=chosen, why=why, seeds=seeds, pairs=len(held.language), tail=tuple(tail), arms=arms
    )


def tail_gains(held: HeldOut, tail: Sequence[str]) -> tuple[CurveArm, ...]:
    """Return the tail accuracy of every arm and its gain over plain. Raises InputError as `decide`."""
    _check(held, tail)
    judge = _Judge.make(held, tail)
    found = (judge.result(arm) for arm in held.right)
    return tuple(CurveArm(arm=a.arm, tail=a.tail, gain=a.tail_gain) for a in found)


def _check(held: HeldOut, tail: Sequence[str]) -> None:
    if "plain" not in held.right:
        raise InputError(f"there are results of {', '.join(held.right) or 'no head'}, expected plain, too")
    wanted = (len(held.right["plain"]), len(held.language))
    for arm, right in held.right.items():
        if right.shape != wanted:
            raise InputError(
                f"results of head {arm!r} have shape {right.shape}, expected {wanted} (seeds, pairs): train "
                "every head with the same seeds and judge it on the same pairs"
            )
    check_tail(held.language, tail)


def check_tail(languages: Sequence[str], tail: Sequence[str]) -> None:
    """Raise InputError where the tail is empty, or none of the judged pairs is in one of its languages."""
    known = set(languages)
    unknown = sorted(set(tail) - known)
    if unknown or not tail:
        raise InputError(
            f"no held pair is in a tail language ({', '.join(unknown) or 'none named'}); name with --tail "
            f"only languages of the held pairs that are trained on, too: {', '.join(sorted(known))}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judge:
    """numbers: (P,) place of each pair's language in `names`. a, b: (P,) places of its sources, a <= b. tail:
    (L,) bool."""

    held: HeldOut
    names: list[str]
    numbers: Ints
    a: Ints
    b: Ints
    tail: NDArray[np.bool_]

    @staticmethod
    def make(held: HeldOut, tail: Sequence[str]) -> "_Judge":
        names, numbers = np.unique(np.array(held.language, dtype=object).astype(str), return_inverse=True)
        sides = np.unique(np.concatenate([held.a, held.b]), return_inverse=True)[1].reshape(2, -1)
        low, high = np.sort(sides, axis=0).astype(np.int64)
        return _Judge(
            held=held, names=names.tolist(), numbers=numbers.astype(np.int64), a=low, b=high,
            tail=np.isin(names, list(tail)),
        )  # fmt: skip

    def result(self, arm: str) -> ArmResult:
        """Return what is reported of one arm."""
        own = self._by_language(self.held.right[arm].mean(axis=0))
        return ArmResult(
            arm=arm, tail=_mean(own[self.tail]), head=_mean(own[~self.tail]), every=_mean(own),
            worst=_mean(np.sort(own)[:5]), languages=dict(zip(self.names, own.tolist(), strict=True)),
            tail_gain=self.gain(arm, "plain", self.tail), head_gain=self.gain(arm, "plain", ~self.tail),
        )  # fmt: skip

    def gain(self, arm: str, other: str, languages: NDArray[np.bool_]) -> Difference:
        """Return arm minus other, mean over some languages; 0 where there is none of them."""
        from scipy.stats import t

        if not languages.any() or arm == other:
            return Difference(value=0.0, low=0.0, high=0.0)
        values = self.held.right[arm] - self.held.right[other]
        by_seed = np.array([_mean(self._by_language(row)[languages]) for row in values])
        variance, freedom = self._variance(values.mean(axis=0), languages)
        if freedom < 1:
            return Difference(value=float(by_seed.mean()), low=-1.0, high=1.0)
        square = float(t.ppf(0.975, freedom)) ** 2 * variance
        if len(by_seed) > 1:
            square += float(t.ppf(0.975, len(by_seed) - 1)) ** 2 * by_seed.var(ddof=1) / len(by_seed)
        value, half = float(by_seed.mean()), float(np.sqrt(square))
        return Difference(value=value, low=value - half, high=value + half)

    def _variance(self, values: Floats, languages: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the variance of the mean over languages of values (P,), over draws of sources, and its
        degrees of freedom: below 1 where it is not known."""
        rest = values - self._by_language(values)[self.numbers]
        counts = np.bincount(self.numbers, minlength=len(self.names))
        squares, n = np.bincount(self.numbers, rest**2, len(self.names))[languages], counts[languages]
        few, free = n < _FEW, n - 1
        if not free.any():
            return float("nan"), 0.0
        if not free[few].any():
            few = few | few.any()  # pairs that stand alone vary as all others do
        own, pooled = squares / np.maximum(free, 1), squares[few].sum() / max(free[few].sum(), 1)
        terms = np.where(few, pooled, own) / n / len(n) ** 2  # of the languages, which add up
        share = languages[self.numbers] / (counts[self.numbers] * languages.sum())
        part = share * rest * np.sqrt(counts / np.maximum(counts - 1, 1))[self.numbers]
        variance = float(terms.sum()) + max(self._shared(part), 0.0)
        blocks = [(terms[few].sum(), free[few].sum()), *zip(terms[~few], free[~few], strict=True)]
        spread = sum(float(v) ** 2 / max(int(f), 1) for v, f in blocks)
        freedom = float(terms.sum()) ** 2 / spread if spread > 0 else float(free.sum())
        weight = self._by_source(share)
        return variance, min(freedom, float(weight.sum() ** 2 / (weight**2).sum()) - 1.0)

    def _shared(self, part: Floats) -> float:
        """Return the sum of the products of parts (P,) of each two pairs that share a source, both orders."""
        sources = int(self.b.max()) + 1
        two = np.where(self.a == self.b, 0.0, part)
        both = np.unique(self.a * sources + self.b, return_inverse=True)[1]
        by_two = np.bincount(both, two)  # pairs that share both were counted for each
        whole = (self._by_source(part) ** 2).sum() - (by_two**2).sum()
        return float(whole - (part**2).sum())

    def _by_source(self, part: Floats) -> Floats:
        """Return the sum of parts (P,) over the pairs that each source is in."""
        sources = int(self.b.max()) + 1
        other = np.where(self.a == self.b, 0.0, part)
        by_a: Floats = np.bincount(self.a, part, sources).astype(np.float64)
        return by_a + np.bincount(self.b, other, sources)

    def lacking(self) -> str:
        """Return what the tail has too little of to decide, in numbers; "" where there is enough."""
        inside = self.tail[self.numbers]
        counts = np.bincount(self.numbers, minlength=len(self.names))
        least = min(np.flatnonzero(self.tail).tolist(), key=lambda i: int(counts[i]))
        sources = len(np.unique(np.concatenate([self.a[inside], self.b[inside]])))
        if inside.sum() >= LEAST_TAIL and sources >= LEAST_SOURCES and counts[least] >= LEAST_EACH:
            return ""
        return (
            f"the tail has {inside.sum()} judged pairs of {sources} sources, {counts[least]} in "
            f"{self.names[least]}, and the rule asks for {LEAST_TAIL}, {LEAST_SOURCES} and {LEAST_EACH} in "
            "each language; plain is the default"
        )

    def _by_language(self, values: Floats) -> Floats:
        """Return (L,) mean of values (P,) over each language's pairs."""
        count = len(self.names)
        return np.bincount(self.numbers, values, count) / np.bincount(self.numbers, minlength=count)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _choose(judge: _Judge, arms: Mapping[str, ArmResult], seeds: int) -> tuple[str, str]:
    if seeds < LEAST_SEEDS:
        return (
            "plain",
            f"{seeds} seeds were trained, and the rule asks for {LEAST_SEEDS}; plain is the default",
        )
    if lacking := judge.lacking():
        return "plain", lacking
    best = max((a for a in SIMPLE if a in arms), key=lambda a: (arms[a].tail, -SIMPLE.index(a)))
    gated = [a for a in GATED if a in arms]
    against = ""
    if gated:
        poso = max(gated, key=lambda a: (arms[a].tail, -GATED.index(a)))
        gain = judge.gain(poso, best, judge.tail)
        loss = -judge.gain(poso, best, ~judge.tail).value
        objections = _objections(gain, loss, arms.get(PLACEBO))
        told = f"{poso} against {best}, the best of the simple heads: tail {_points(gain)}"
        if not objections:
            return poso, f"{told}, head languages lose {100 * loss:.2f}, the placebo gains nothing"
        against = f"; {told}, {objections[0]}"
    winners = [
        a for a in SIMPLE[1:] if a in arms and arms[a].tail_gain.low > 0 and arms[a].head_gain.value >= -LOSS
    ]
    if not winners:
        return "plain", f"no simple head beats plain on the tail beyond its interval{against}"
    chosen = winners[0]
    for later in winners[1:]:
        if judge.gain(later, chosen, judge.tail).low > 0:
            chosen = later
    return chosen, f"{chosen} against plain: tail {_points(arms[chosen].tail_gain)}{against}"


def _beaten(judge: _Judge, chosen: str) -> str:
    """Say which of the arms that no rater has does better on the tail than what is chosen."""
    found = {a: judge.gain(a, chosen, judge.tail) for a in _CONTROLS if a in judge.held.right}
    told = [
        f"; {arm} against {chosen}: tail {_points(g)}, but no rater has it"
        for arm, g in found.items()
        if g.low > 0
    ]
    return "".join(told)


def _objections(gain: Difference, loss: float, placebo: ArmResult | None) -> list[str]:
    """Return what speaks against POSO, by the rule."""
    found: list[str] = []
    if gain.value < GAIN:
        found.append(f"below the {100 * GAIN:.1f} points that are asked for")
    if gain.low <= 0:
        found.append("within its interval")
    if loss > LOSS:
        found.append(f"head languages lose {100 * loss:.2f} points, above {100 * LOSS:.1f}")
    if placebo is None:
        found.append("without a placebo beside it")
    elif placebo.tail_gain.value > NOTHING or placebo.tail_gain.low > 0:
        found.append(f"but codes dealt out at random gain, too: {_points(placebo.tail_gain)}")
    return found


def _points(gain: Difference) -> str:
    return f"{100 * gain.value:+.2f} points ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
