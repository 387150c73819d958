"""Values about outcomes: trials, proposals, confirmations, comparisons, the dataset on disk."""

from dataclasses import dataclass, field
from typing import Literal

from quadmix.types.mixture import Theta


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Loss of one model on one target: bits per byte of scored text, its standard error over rows,
    and how many rows, tokens and bytes were scored."""

    bits_per_byte: float
    stderr: float
    rows: int
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One trained model: what it was trained on and what it lost.

    kind: "prior" (swarm), "repeat" (noise floor), "regmix" (domain-only swarm), "confirm", "compare".
    label: the selector's name ("theta", "prior-mean", "random", "top:edu", ...).
    losses: per target name; heldout: per domain name; curve: (step, training bits per token).
    job: digest of all that the model was made from, so that a trial is never taken for another job's.
    group: how many models were trained together with it, itself counted.
    """

    trial_id: str
    kind: str
    label: str
    theta: Theta | None
    seed: int
    selected_tokens: int
    unique_tokens: int
    train_tokens: int
    epochs: float
    losses: dict[str, Loss]
    heldout: dict[str, Loss]
    status: Literal["done", "failed"]
    reason: str = ""
    shares: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    job: str = ""
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Out-of-fold prediction of one trial: what was measured and what a fit without it said."""

    trial_id: str
    measured: float
    predicted: float
    stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateReport:
    """Out-of-fold quality of one surrogate on one target (bits per byte), next to the noise floor.

    regret_at_k: least loss among the k trials predicted best, minus the least of all. best_decile_bias: mean
    of predicted minus measured over the tenth predicted best (below 0: promises too much there).
    interval_coverage: share of trials inside the 90 % interval. `auto` has the weight of every member.
    """

    target: str
    surrogate: str
    spearman: float
    spearman_low: float
    spearman_high: float
    rmse: float
    r2: float
    regret_at_1: float
    pairwise_accuracy: float
    interval_coverage: float
    noise_sd: float
    spread_sd: float
    parity: tuple[Parity, ...]
    regret_at_5: float = float("nan")
    best_decile_bias: float = float("nan")
    members: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """How the losses of the targets become one number, smaller = better.

    weights: per target, sum 1. how: "mean" is Σ_t w_t L_t; "worst" is Σ_t w_t level_t + T max_t w_t (L_t -
    level_t), which rises with the target that is worst off. ceilings: losses that may not be exceeded.
    relative: targets whose ceiling is the control's loss, whatever that is where it is measured.
    """

    weights: dict[str, float]
    how: Literal["mean", "worst"] = "mean"
    levels: dict[str, float] = field(default_factory=dict[str, float])
    ceilings: dict[str, float] = field(default_factory=dict[str, float])
    relative: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPoint:
    """Out-of-fold quality of the objective with that many trials to learn from."""

    trials: int
    rmse: float
    r2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """What more trials buy: measured points, and a forecast for 100 more by rmse² = floor + b n^-c."""

    points: tuple[LearningPoint, ...]
    forecast: LearningPoint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """How far a proposal's prediction falls short: proposed on one half of the trials, judged by the other.

    promised, judged: mean predicted objective of the proposals by the half that made them and by the other
    one. optimism: judged minus promised (above 0: promised too much). halves: judged minus promised of each.
    """

    promised: float
    judged: float
    optimism: float
    halves: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of an adaptive search. best: least measured objective so far; improvement: expected by the
    surrogate for the next batch over it, to be held against the noise."""

    trials: int
    best: float
    improvement: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What one group of a candidate's parameters is predicted to do: put into the reference (the prior mean),
    minus the reference, with a 90 % interval."""

    group: str
    domain: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a group of parameters does to the predicted objective around the proposal.

    range: objective when the group alone moves through its box, largest minus smallest. difference, low,
    high: as in `Contrast`, for the proposal. flat: the range does not clear the noise of one trial, not even
    at the upper end of its own interval.
    """

    group: str
    domain: str
    range: float
    difference: float
    low: float
    high: float
    flat: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """What the proposal's values of two domains are predicted to do together beyond the sum of what each does
    alone, put into the reference (the prior mean), with a 90 % interval. Below 0: better together."""

    domain: str
    other: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A mixture worth confirming: its predicted objective with a 90 % interval, and losses per target.

    theta: None where mixtures are given by shares alone. shares: expected token share per domain.
    """

    name: str
    theta: Theta | None
    predicted: float
    predicted_low: float
    predicted_high: float
    losses: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """Outcome of the search before confirmation. `candidates[0]` is the proposal.

    objective.weights are the user's weights over the swarm's spread, normalised to sum 1, which ranks like
    the weighted mean of z-scores. best_observed: least measured objective of a trial.
    """

    candidates: tuple[Candidate, ...]
    objective: Objective
    diagnostics: tuple[SurrogateReport, ...]
    trials_used: int
    trials_excluded: dict[str, str]
    noise_sd: float
    spread_sd: float
    feature_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    surrogate: str = "auto"
    learning: LearningCurve | None = None
    optimism: Optimism | None = None
    batches: tuple[Batch, ...] = ()
    effects: tuple[Effect, ...] = ()
    contrasts: dict[str, tuple[Contrast, ...]] = field(default_factory=dict[str, tuple[Contrast, ...]])
    interactions: tuple[Interaction, ...] = ()
    best_observed: float = float("nan")

    @property
    def target_weights(self) -> dict[str, float]:
        """Effective weight of each target in the objective."""
        return self.objective.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Paired difference `label` minus `control` of the objective (negative = label is better)."""

    label: str
    control: str
    difference: float
    low: float
    high: float
    stderr: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Objective of one label over its seeds: mean, interval (95 % in the confirmation, the rung's confidence
    in a rung), values per seed, losses per target.

    seeds: those of the values, in their order.
    """

    label: str
    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    losses: dict[str, float]
    heldout: dict[str, float]
    selected_tokens: int
    unique_tokens: int
    epochs: float
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One label in the race of the confirmation.

    round: the last that it was trained in. seeds: how many its mean objective is over, common to that round.
    behind: mean minus that of the round's leading candidate. left: why it was not trained on, "" if it is in
    the final comparison.
    """

    label: str
    round: int
    seeds: int
    mean: float
    behind: float
    left: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confirmation:
    """Fresh proxies of the candidates, several seeds: which one won, by how much over prior-mean.

    against: the labels that were compared in the end. rounds: all that were tried, best first.
    needed: what it would take to confirm, "" if it is confirmed. source: the run that measured all this, ""
    for the run itself; another one's θ* was applied to the corpus.
    """

    winner: str
    theta: Theta
    confirmed: bool
    reason: str
    measured: tuple[Measured, ...]
    against: tuple[Paired, ...]
    rounds: tuple[Standing, ...] = ()
    needed: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One committed file: name inside its folder, rows, tokens, copies, bytes, digest."""

    name: str
    rows: int
    bytes: int
    digest: str
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Conservation (promise P4): rows_in = selected + sum(dropped) + sum(quarantined); copies and
    tokens likewise. `tokens_out` counts copies; `unique_tokens` counts each selected document once."""

    rows_in: int
    selected: int
    dropped: dict[str, int]
    quarantined: dict[str, int]
    copies: int
    tokens_in: int
    unique_tokens: int
    tokens_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainTokens:
    """One domain before and after: documents, tokens, copies, expected tokens."""

    domain: str
    documents_in: int
    tokens_in: int
    documents_out: int
    unique_tokens: int
    tokens_out: int
    expected_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """What the dataset folder holds; written last, so its presence means the dataset is whole.

    format: "index" has one row (doc_id, copies) per selected document and no text. order: "shuffled" by
    `seed` (shard k of K holds the times k/K..(k + 1)/K of `materialise.order`), or "corpus" with copies as
    neighbours. codec: compression of the columns or lines. digest: over shards, counts and domains. plan:
    digest of what was asked for (selection, corpus, format, order, shard size, seed), so that the same call
    again finds its own work. version: from 2 on the files of `materialise.facts` belong to it.
    """

    format: Literal["parquet", "jsonl.zst", "index"]
    shards: tuple[ShardInfo, ...]
    ledger: Ledger
    domains: tuple[DomainTokens, ...]
    token_budget: int
    identity: str
    theta_label: str
    seed: int
    digest: str
    plan: str = ""
    order: Literal["shuffled", "corpus"] = "shuffled"
    codec: str = "zstd"
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One evaluation result row."""

    task: str
    language: str
    metric: str
    value: float
    stderr: float
    n: int
    chance: float | None = None
