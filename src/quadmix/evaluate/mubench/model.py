"""A causal language model from a local folder in the hub's format, ready to score text.

In: a folder (any `AutoModelForCausalLM`, or one that `quadmix models export` wrote). Out: a `CausalModel`.
Nothing is fetched and no code of the folder runs. Weights that the folder lacks, which transformers would
draw at random, are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadmix.annotate.models.base import Device, Precision, Settings
from quadmix.annotate.models.devices import choose_device, import_torch, import_transformers
from quadmix.annotate.models.pretrained import missing_weights, quiet
from quadmix.errors import InputError
from quadmix.io.atomic import file_digest, value_digest

if TYPE_CHECKING:
    import torch

_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")
_CONTEXT = ("n_positions", "max_position_embeddings", "n_ctx")  # in lm-evaluation-harness's order
_UNLIMITED = 1_000_000  # a tokenizer that does not know its limit says 1e30
_DEFAULT_CONTEXT = 2048  # lm-evaluation-harness's, where nothing says it
_WINDOWS = ("sliding_window", "attention_chunk_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model is. name: of its folder. digest: of all its files. precision: of the computation.
    context: tokens that it reads at most. entries: rows of its vocabulary."""

    name: str
    digest: str
    precision: str
    context: int
    entries: int


@dataclass(slots=True, kw_only=True)
class CausalModel:
    """A loaded model. prefix: token that stands for an empty context, None if the tokenizer has none. window:
    positions that attention reaches back, None where it reaches all. packs: may options share one pass over
    their context (see `packed`)? None: not tried yet."""

    facts: ModelFacts
    network: Any
    tokenizer: Any
    prefix: int | None
    window: int | None
    packs: bool | None = field(default=None)

    @property
    def device(self) -> "torch.device":
        """Return where the model computes."""
        return next(self.network.parameters()).device

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Return the token ids of the texts, with the special tokens that the tokenizer adds by itself.

        Raises InputError for an id that the model has no row for.
        """
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
        if (most := max(map(max, filter(None, found)), default=0)) >= self.facts.entries:
            raise InputError(
                f"model {self.facts.name!r}: the tokenizer gives the id {most:,}, the model has "
                f"{self.facts.entries:,} entries; expected the tokenizer that it was trained with"
            )
        return found


def folder_digest(folder: str | Path) -> str:
    """Return a digest of all files of a model that are read; InputError if there is no config.json."""
    home = Path(folder)
    if not (home / "config.json").is_file():
        raise InputError(
            f"model {str(folder)!r} has no config.json; expected a folder in the Hugging Face format, as "
            "`quadmix models export` writes"
        )
    files = sorted({path for pattern in _FILES for path in home.glob(pattern) if path.is_file()})
    return value_digest([[path.name, file_digest(path)] for path in files if path.name != "quadmix.json"])


def load_causal(
    folder: str | Path, *, device: Device = "auto", precision: Precision = "auto", context: int | None = None
) -> CausalModel:
    """Load a model and its tokenizer.

    precision: auto is float32 on a CPU and the number format of the files on a GPU. context: fewer tokens
    than the model's own limit, or more where its configuration says none.
    Raises InputError for a folder without model or tokenizer, or with weights missing.
    """
    home, digest = Path(folder), folder_digest(folder)
    torch, transformers = import_torch("a language model"), import_transformers("a language model")
    place = choose_device(Settings(device=device, precision=precision))
    dtype: Any = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision, "auto")
    if precision == "auto" and place.type == "cpu":
        dtype = torch.float32
    tokenizer = _read(
        transformers, "AutoTokenizer", home, "the tokenizer's files (tokenizer.json, tokenizer_config.json)"
    )
    network, loading = _read(
        transformers, "AutoModelForCausalLM", home, "weights that fit config.json", dtype=dtype,
        output_loading_info=True,
    )  # fmt: skip
    if wrong := missing_weights(network, loading):
        raise InputError(
            f"model {str(folder)!r} lacks {len(wrong)} weights of a {type(network).__name__} "
            f"({', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}), they would be random; is the "
            "download complete?"
        )
    network = network.to(place).eval().requires_grad_(False)
    entries = int(network.get_input_embeddings().weight.shape[0])
    facts = ModelFacts(
        name=home.absolute().name, digest=digest, entries=entries,
        precision=str(network.get_input_embeddings().weight.dtype).removeprefix("torch."),
        context=_context(network.config, tokenizer, context),
    )  # fmt: skip
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return CausalModel(
        facts=facts, network=network, tokenizer=tokenizer, prefix=prefix, window=_window(network.config)
    )


def _read(transformers: Any, auto: str, home: Path, expected: str, **extra: Any) -> Any:
    try:
        with quiet(transformers):
            return getattr(transformers, auto).from_pretrained(
                str(home), local_files_only=True, trust_remote_code=False, **extra
            )
    except Exception as error:  # of half a dozen libraries; whatever it is, these files cannot be used
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model {str(home)!r}: {auto} cannot read it ({reason}); expected {expected}"
        ) from error


def _context(config: Any, tokenizer: Any, wanted: int | None) -> int:
    text = getattr(config, "text_config", None) or config
    limits = [int(value) for name in _CONTEXT if (value := getattr(text, name, None))]
    own = int(getattr(tokenizer, "model_max_length", None) or _UNLIMITED)
    limit = limits[0] if limits else own if own < _UNLIMITED else None
    if wanted is None:
        return limit or _DEFAULT_CONTEXT
    if wanted < 2 or (limit is not None and wanted > limit):
        raise InputError(
            f"context is {wanted}, expected 2 to {limit if limit is not None else 'any number of'} tokens, "
            "what the model was made for; leave it out to take the model's own"
        )
    return wanted


def _window(config: Any) -> int | None:
    """Return how far attention reaches back where that is limited in any layer."""
    text = getattr(config, "text_config", None) or config
    if getattr(text, "use_sliding_window", True) is False:
        return None
    found = [int(value) for name in _WINDOWS if (value := getattr(text, name, None))]
    return min(found) if found else None
