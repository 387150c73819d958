"""Values that travel between rooms: frozen, checked at construction, JSON through `to_json`/`from_json`.

Shape letters: D documents, N criteria, M domains, K trials, P parameters.
Scores, merged scores and ranks are **smaller = better** everywhere inside the tool.
"""

import dataclasses
import types as pytypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError, RecipeError, ScoreError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Copies = NDArray[np.int32]

MAX_DOMAINS = 2**15 - 1


# --------------------------------------------------------------------------- corpus
@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A piece of one input file that one worker reads: a byte range, row groups, or the whole file.

    `start` and `stop` are bytes for jsonl (a split owns the lines that *begin* inside it), row
    groups for parquet; compressed files are one split (`stop` None).
    `first_row` is the ordinal of the split's first row in its file, where that is known.
    """

    index: int
    path: str
    format: Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet"]
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """Which of the user's columns play which part; `id` None means ids are made from path and row."""

    text: str
    id: str | None = None
    domain: str | None = None
    tokens: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One input file as it was when the run began."""

    path: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """What reading one split gave: rows in = documents + quarantined[reason]."""

    split: int
    rows: int
    documents: int
    text_bytes: int
    quarantined: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The frozen input: files with digests, splits in order, the column map, counts per split."""

    files: tuple[FileInfo, ...]
    splits: tuple[Split, ...]
    columns: ColumnMap
    counts: tuple[SplitCount, ...]
    digest: str
    root: str = ""

    @property
    def documents(self) -> int:
        return sum(c.documents for c in self.counts)


# --------------------------------------------------------------------------- annotations
@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionInfo:
    """A criterion as the tables carry it. `declared` is the direction as delivered by its source;
    inside the tool every score is smaller = better (scores of `higher` criteria were negated)."""

    name: str
    declared: Literal["higher", "lower"]
    kind: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """The compact table of numbers on which the method works; it holds no text.

    doc_id: (D,) Arrow strings. keys: (D,) uint64 hash of doc_id. tokens: (D,) int32, > 0.
    domain: (D,) int16 in 0..M-1. scores: (D, N) float32, smaller = better, NaN = missing.
    held_out: (D,) bool, True for documents reserved for evaluation (never selected or trained on).
    split: (D,) int32 index of the corpus split of the document; rows keep the corpus order.
    """

    doc_id: pa.ChunkedArray
    keys: NDArray[np.uint64]
    tokens: NDArray[np.int32]
    domain: NDArray[np.int16]
    scores: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    split: NDArray[np.int32]
    criteria: tuple[CriterionInfo, ...]
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        d = len(self.tokens)
        for name in ("doc_id", "keys", "domain", "held_out", "split"):
            if len(getattr(self, name)) != d:
                raise ScoreError(f"annotations.{name} has {len(getattr(self, name))} rows, expected {d}")
        if self.scores.shape != (d, len(self.criteria)):
            raise ScoreError(
                f"annotations.scores has shape {self.scores.shape}, expected ({d}, {len(self.criteria)})"
            )
        if d and not (0 <= int(self.domain.min()) and int(self.domain.max()) < len(self.domains)):
            raise ScoreError(
                f"annotations.domain spans {self.domain.min()}..{self.domain.max()}, "
                f"expected 0..{len(self.domains) - 1}"
            )
        if d and int(self.tokens.min()) <= 0:
            row = int(self.tokens.argmin())
            raise ScoreError(f"annotations.tokens[{row}] is {self.tokens[row]}, expected > 0")
        if np.isinf(self.scores).any():
            row, col = np.argwhere(np.isinf(self.scores))[0]
            raise ScoreError(
                f"score {self.criteria[col].name!r} of row {row} is infinite; scores are finite or missing"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Annotations":
        """Return the table restricted to `rows` (a mask or ascending indices)."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return dataclasses.replace(
            self,
            doc_id=self.doc_id.take(pa.array(index)),
            keys=self.keys[index],
            tokens=self.tokens[index],
            domain=self.domain[index],
            scores=self.scores[index],
            held_out=self.held_out[index],
            split=self.split[index],
        )

    def domain_tokens(self) -> Floats:
        """Return (M,) float64, tokens per domain."""
        return np.bincount(self.domain, weights=self.tokens, minlength=len(self.domains)).astype(np.float64)


# --------------------------------------------------------------------------- theta
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Theta:
    """The parameters of a mixture (QuaDMix, arXiv 2504.16511, §3; Algorithm 1).

    weights: (M, N) rows on the simplex, α. steepness: (M,) λ > 0. cutoff: (M,) ω in [0, 1], the
    worst rank kept. exponent: (M,) η >= 0. floor: (M,) ε >= 0, the rate outside the window.
    """

    weights: Floats
    steepness: Floats
    cutoff: Floats
    exponent: Floats
    floor: Floats

    def __post_init__(self) -> None:
        for name in ("weights", "steepness", "cutoff", "exponent", "floor"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise RecipeError(f"theta.{name} holds a value that is not finite")
            object.__setattr__(self, name, array)
        if self.weights.ndim != 2:
            raise RecipeError(f"theta.weights has {self.weights.ndim} axes, expected (M, N)")
        m = len(self.weights)
        for name in ("steepness", "cutoff", "exponent", "floor"):
            if getattr(self, name).shape != (m,):
                raise RecipeError(f"theta.{name} has shape {getattr(self, name).shape}, expected ({m},)")
        if (self.weights < 0).any() or not np.allclose(self.weights.sum(axis=1), 1.0, atol=1e-9):
            raise RecipeError("theta.weights: every row must be >= 0 and sum to 1")
        if (self.steepness <= 0).any():
            raise RecipeError(f"theta.steepness must be > 0, got {self.steepness.min()}")
        if (self.cutoff < 0).any() or (self.cutoff > 1).any():
            raise RecipeError(f"theta.cutoff must lie in [0, 1], got {self.cutoff.min()}..{self.cutoff.max()}")
        if (self.exponent < 0).any() or (self.floor < 0).any():
            raise RecipeError("theta.exponent and theta.floor must be >= 0")

    @property
    def num_domains(self) -> int:
        return self.weights.shape[0]

    @property
    def num_criteria(self) -> int:
        return self.weights.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """The interval [low, high] of its domain's tokens that each document covers; 0 = best, 1 = worst.

    `paper` and `hash-tiebreak` ranks are points: there low == high.
    """

    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What a θ makes of a table, per document: normalised (D, N), merged, rank, expected, copies."""

    normalised: NDArray[np.float32]
    merged: Floats
    ranks: Ranks
    expected: Floats
    copies: Copies


# --------------------------------------------------------------------------- trials
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


# --------------------------------------------------------------------------- search results
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
    """The final comparison at equal training tokens with a larger model."""

    chosen: str
    measured: tuple[Measured, ...]
    against: tuple[Paired, ...]
    predicted: dict[str, float]
    model_parameters: int
    train_tokens: int
    target_weights: dict[str, float]
    verdict: str


# --------------------------------------------------------------------------- outputs
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
    """What the dataset folder holds; written last, so its presence means the dataset is whole."""

    format: Literal["parquet", "jsonl.zst"]
    shards: tuple[ShardInfo, ...]
    ledger: Ledger
    domains: tuple[DomainTokens, ...]
    token_budget: int
    identity: str
    theta_label: str
    seed: int
    digest: str
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


# --------------------------------------------------------------------------- JSON
T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Return `value` (dataclasses, arrays, tuples, mappings) as plain JSON values, NaN as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in cast(list[Any], value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Rebuild a value of type `cls` from `to_json`'s output; unknown or missing fields are errors.

    JSON null becomes NaN where a float is expected.
    """
    return cast(T, _decode(cls, data, where or getattr(cls, "__name__", str(cls))))


def _decode(hint: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, pytypes.UnionType):
        if data is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where)
    if origin is np.ndarray:
        return np.asarray(data, dtype=get_args(args[1])[0])
    if origin is tuple:
        hints = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        return tuple(_decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, data, strict=True)))
    if origin is dict:
        return {k: _decode(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if origin is Literal:
        if data not in args:
            raise InputError(f"{where} is {data!r}, expected one of {', '.join(map(repr, args))}")
        return data
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(cast(type, hint), data, where)
    if hint is float:
        return float("nan") if data is None else float(data)
    return data


def _decode_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"{where} is {type(data).__name__}, expected an object with the fields of {cls.__name__}")
    record = cast(dict[str, Any], data)
    hints = get_type_hints(cls)
    unknown = set(record) - set(hints)
    if unknown:
        raise InputError(f"{where} has unknown field {sorted(unknown)[0]!r}; was it written by another version?")
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := required - set(record):
        raise InputError(f"{where} lacks field {sorted(missing)[0]!r}; was it written by another version?")
    return cls(**{k: _decode(hints[k], v, f"{where}.{k}") for k, v in record.items()})
