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
    """Out-of-fold quality of one surrogate on one target (bits per byte), next to the noise floor."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A θ worth confirming: its predicted objective (bits per byte) with a 90 % interval."""

    name: str
    theta: Theta
    predicted: float
    predicted_low: float
    predicted_high: float
    losses: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """Outcome of the search before confirmation. `candidates[0]` is the proposal.

    target_weights: effective weight of each target in the objective; they sum to 1 and are the
    user's weights over the swarm's spread, which ranks like the weighted mean of z-scores.
    """

    candidates: tuple[Candidate, ...]
    target_weights: dict[str, float]
    diagnostics: tuple[SurrogateReport, ...]
    trials_used: int
    trials_excluded: dict[str, str]
    noise_sd: float
    spread_sd: float
    feature_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    """Objective of one label over its seeds: mean, 95 % interval, values per seed, losses per target."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confirmation:
    """Fresh proxies of the candidates, several seeds: which one won, by how much over prior-mean."""

    winner: str
    theta: Theta
    confirmed: bool
    reason: str
    measured: tuple[Measured, ...]
    against: tuple[Paired, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The final comparison at equal training tokens with a larger model.

    pool_share: share of the pool's tokens on which every selector worked (repetition-matched parts are
    smaller than the pool). proxies: how many proxies a searched selector had trained.
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

    digest: over shards, counts and domains. plan: digest of what was asked for (selection, corpus, format,
    shard size, seed), so that the same call again finds its own work.
    """

    format: Literal["parquet", "jsonl.zst"]
    shards: tuple[ShardInfo, ...]
    ledger: Ledger
    domains: tuple[DomainTokens, ...]
    token_budget: int
    identity: str
    theta_label: str
    seed: int
    digest: str
    plan: str = ""
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
