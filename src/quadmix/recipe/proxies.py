"""The sections that say what a proxy is: its shape, its training, the swarm; and the ladder of sizes."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from quadmix.recipe.base import Section, Share

# millions of parameters, tied vocabulary of 4,096 (8,192 from 8M on): 0.37, 1.3, 3.7, 5.1, 8.3, 21
LADDER: dict[str, dict[str, int]] = {
    "0.3M": {"layers": 2, "width": 64, "heads": 2, "mlp": 192},
    "1M": {"layers": 4, "width": 128, "heads": 4, "mlp": 352},
    "3M": {"layers": 4, "width": 256, "heads": 4, "mlp": 512},
    "5M": {"layers": 5, "width": 256, "heads": 4, "mlp": 704},
    "8M": {"layers": 6, "width": 288, "heads": 6, "mlp": 768},
    "20M": {"layers": 8, "width": 448, "heads": 8, "mlp": 1024},
}
_PASS_TOKENS = 16_384


class ModelSection(Section):
    """A decoder: RMSNorm, RoPE, SwiGLU."""

    size: Literal["0.3M", "1M", "3M", "5M", "8M", "20M"] | None = Field(
        default=None, description="a step of the size ladder; sets layers, width, heads and mlp"
    )
    layers: int = Field(default=2, ge=1)
    width: int = Field(default=64, ge=8)
    heads: int = Field(default=2, ge=1)
    mlp: int = Field(default=192, ge=8)
    context: int = Field(default=128, ge=16, description="tokens of a training sequence")
    head: Literal["tied", "untied"] = Field(
        default="tied", description="does the output head share the embedding's weights?"
    )
    architecture: Literal["quadmix", "tinyllama"] = Field(
        default="quadmix", description="tinyllama: norm gains and initialisation as in RegMix's tinyllama_1M"
    )
    vocab_multiple: int = Field(
        default=1, ge=1, description="the vocabulary is padded to a multiple of this many entries"
    )
    gates: Literal["none", "domain"] = Field(
        default="none",
        description="for research, proxies only: scale the feed-forward features by a document's domain; "
        "docs/poso.md says why not",
    )

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("size") in LADDER:  # pyright: ignore[reportUnknownMemberType]
            return {**LADDER[data["size"]], **data}
        return data

    @model_validator(mode="after")
    def _divides(self) -> "ModelSection":
        if self.width % (2 * self.heads):
            raise ValueError(f"model width {self.width} must be a multiple of twice the heads ({self.heads})")
        return self

    @model_serializer(mode="wrap")
    def _without_default_gates(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model without gates is written as before there were any, so what was trained is still known."""
        found: dict[str, Any] = handler(self)
        return {k: v for k, v in found.items() if k != "gates" or v != "none"}

    def padded(self, vocab: int) -> int:
        """Return the vocabulary of the model for a tokenizer of `vocab` entries."""
        return -(-vocab // self.vocab_multiple) * self.vocab_multiple


class TrainingSection(Section):
    """How a proxy or a comparison model is trained; the same for every θ."""

    tokens: int = Field(default=1_000_000, gt=0, description="training tokens per model")
    batch: int = Field(default=8, ge=1, description="sequences per step")
    micro_batch: int = Field(
        default=0, ge=0, description="sequences per pass, a divisor of `batch`; 0: about 16,000 tokens"
    )
    peak_lr: float = Field(
        default=0.02, gt=0, description="peak learning rate of the matrices (Muon) or of all (AdamW)"
    )
    optimizer: Literal["muon", "adamw"] = "muon"
    schedule: Literal["linear", "constant", "wsd"] = Field(
        default="linear", description="decay to zero, none, or late decay"
    )
    warmup: Share = Field(default=0.03, description="share of the steps")
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    order: Literal["clock", "stratified", "shuffled"] = Field(
        default="clock",
        description="when a document is seen: by a hash of its id; spread evenly by domain; anyhow",
    )
    average: Literal["none", "last", "ema"] = Field(
        default="none", description="losses of the last weights, of the mean of the last ones, or of an EMA"
    )
    average_share: Share = Field(
        default=0.2,
        gt=0,
        description="share of the steps that the average covers (for ema: its time constant)",
    )

    @model_validator(mode="after")
    def _whole(self) -> "TrainingSection":
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"training.micro_batch {self.micro_batch} must divide batch {self.batch}")
        return self

    def passes(self, context: int) -> int:
        """Return the passes (micro-batches) of a step; the same on every device, so that sums are too."""
        if self.micro_batch:
            return self.batch // self.micro_batch
        most = max(1, _PASS_TOKENS // context)
        return next(n for n in range(1, self.batch + 1) if self.batch % n == 0 and self.batch // n <= most)


class ProxySection(Section):
    """The swarm: how many tiny models, how large, on how much."""

    trials: int = Field(default=64, ge=8, description="random θ in the swarm")
    repeats: int = Field(
        default=6, ge=0, description="repeated trials of the prior mean (other seeds) for the noise floor"
    )
    group: int = Field(
        default=0,
        ge=0,
        description="models trained together as one; 0: 8 on CPU, 64 on a GPU (measured best)",
    )
    pool: Literal["repetition-matched", "fresh"] = Field(
        default="repetition-matched",
        description="as many epochs as the final run (a smaller pool), or the whole pool and one epoch",
    )
    common: list[Literal["init", "order", "draw"]] = Field(
        default=["init", "order", "draw"],
        description="random numbers that all trials share: initial weights, order of documents, drawn copies",
    )
    save_weights: bool = Field(default=False, description="keep every proxy's weights beside its trial")
    reuse: list[str] = Field(
        default=[],
        description="run folders whose trials count here too, where they still apply; relative to the recipe",
    )
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
