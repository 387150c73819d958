"""Values of the final comparison: what every selector scored on every task, in every rung of the ladder."""

from dataclasses import dataclass, field
from typing import Literal

from quadmix.types.results import Measured, Paired

Metric = Literal["bits_per_byte", "accuracy", "acc", "acc_norm", "greedy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """One selector on one task: mean over seeds and items with its interval (crossed: items by bootstrap,
    seeds by Student's t).

    task: a target, benchmark or held-out domain, or "macro" (mean of tasks) and "micro" (mean of items).
    metric: bits_per_byte (lower is better), or a share of right answers in 0..1: acc (likeliest choice),
    acc_norm (likeliest per character), greedy (greedy decoding gives the answer), or accuracy, the one of
    these that stands for its benchmark (acc_norm, else acc, else greedy). values: one per seed.
    chance: what guessing scores, None where there is no such level.
    """

    task: str
    kind: Literal["target", "benchmark", "heldout"]
    metric: Metric
    label: str
    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    items: int
    chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDifference:
    """The chosen selector minus `control` on one task, paired over items and seeds.

    better: is the chosen one better beyond its interval (below 0 for losses, above 0 for accuracies)?
    worse: beyond it the other way. p: two-sided, of the same distribution as the interval. p_holm: corrected
    over the tasks of this control, metric and kind (Holm 1979), not over controls; macro and micro are no
    tasks of it, theirs is p.
    """

    task: str
    kind: Literal["target", "benchmark", "heldout"]
    metric: Metric
    control: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    items: int
    seeds: int
    better: bool
    worse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """The comparison in one setting of the ladder.

    train_tokens: of every model (with match "epochs": budget times those of the base rung). budget: factor on
    the selected tokens. measured, against: intervals over items and seeds where every target has scored rows,
    else over seeds; each pair over the seeds that both finished, with its own variance. detectable: smallest
    true difference of the objective that these seeds show with 80 % power at the level of the intervals, from
    this rung's own noise: the median over the pairs. promised: a lower bound of it, said before training from
    the noise between the confirmation's proxies. left_out: label -> why it could not take part. flags: what a
    reader must know, such as unequal budgets. confidence: level of all its intervals.
    """

    name: str
    parameters: int
    train_tokens: int
    learning_rate: float
    budget: float
    match: Literal["tokens", "epochs"]
    seeds: int
    measured: tuple[Measured, ...]
    against: tuple[Paired, ...]
    verdict: str
    detectable: float
    promised: float = float("nan")
    scores: tuple[TaskScore, ...] = ()
    differences: tuple[TaskDifference, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    flags: tuple[str, ...] = ()
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Does the ranking of selectors in one rung hold in another?

    small_means, large_means: objective per label, over the seeds that all of these labels finished.
    spearman: with a bootstrap interval over seeds at the level of the large rung's intervals. ceiling:
    median Spearman between two halves of the large rung's seeds (what noise alone would leave); NaN with too
    few. decision_accuracy: share of label pairs that both rungs order alike, over the `decided` pairs whose
    difference in the large rung is beyond its own interval over seeds (NaN if none); all_pairs: the same over
    every pair.
    """

    small: str
    large: str
    labels: tuple[str, ...]
    small_means: tuple[float, ...]
    large_means: tuple[float, ...]
    spearman: float
    low: float
    high: float
    ceiling: float
    decision_accuracy: float
    decided: int
    all_pairs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The final comparison at equal training tokens with larger models.

    The fields up to `verdict` are those of the first rung. pool_share: share of the pool's tokens on which
    every selector worked (repetition-matched parts are smaller than the pool). proxies: how many proxies a
    searched selector had trained. overlaps: target or benchmark -> documents of the pool that share 13 words
    in a row with it and were not excluded for it (0 where all were).
    """

    chosen: str
    measured: tuple[Measured, ...]
    against: tuple[Paired, ...]
    predicted: dict[str, float]
    model_parameters: int
    train_tokens: int
    target_weights: dict[str, float]
    verdict: str
    pool_share: float = 1.0
    proxies: dict[str, int] = field(default_factory=dict[str, int])
    rungs: tuple[Rung, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    overlaps: dict[str, int] = field(default_factory=dict[str, int])
