"""Heads that transformers does not know: NVIDIA's classifiers, and small heads on a frozen embedder (JQL).

In: folders with the head's weights. Out: probabilities or numbers per text.

hub-head: the folder was written by `PyTorchModelHubMixin`: config.json with `base_model` and `id2label`,
weights `model.*` of the encoder and `fc.*` of the head, and the tokenizer. The encoder's own config.json is
not in it: it is taken from the folder of the card's `base`, from a folder `base` inside, or from `BASES`.
transformers' own classes load such a folder too, without a complaint and with a random head.

frozen-head: the embedder is the card's `base`; its card says windows and pooling, so that several heads share
one embedder in memory. The head is one file with `layer1.*`, `layer2.*` (JQL: a ReLU between them) or with
`weight`, `bias` (one linear layer, `train_head`). The header of a .safetensors file may declare two things
(its metadata): `activation`, relu or gelu (the exact one, with erf), between two layers; and `reads`: vector,
the normalised vector of the document (the default), or windows, the pooled vector of each window as the
encoder gives it, whose outputs are joined as `input.aggregate` of the base says (a fine-tuned encoder).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quadmix.annotate.models.base import Outputs, Placed, Settings, TextModel
from quadmix.annotate.models.batches import Forward, TokenModel
from quadmix.annotate.models.devices import choose_device, import_torch, settle, torch_threads
from quadmix.annotate.models.embedding import load_pooled
from quadmix.annotate.models.encoder import label_order
from quadmix.annotate.models.pretrained import (
    check_window,
    longest_input,
    model_from_tensors,
    pad_id,
    read_tokenizer,
    values_config,
)
from quadmix.annotate.models.tensors import read_metadata, read_tensors
from quadmix.annotate.models.windows import Frame, combiner, special_tokens, window_tokeniser
from quadmix.errors import InputError
from quadmix.io.atomic import read_json
from quadmix.recipe.cards import ModelCard

WORDS = "embeddings.word_embeddings.weight"
_DEBERTA_V3_BASE: dict[str, Any] = {
    "model_type": "deberta-v2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 0,
    "layer_norm_eps": 1e-7, "relative_attention": True, "max_relative_positions": -1, "position_buckets": 256,
    "position_biased_input": False, "norm_rel_ebd": "layer_norm", "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True, "pad_token_id": 0,
}  # fmt: skip
# The multilingual model has the same layers and more words; the number of words is read from the weights.
BASES = {"microsoft/deberta-v3-base": _DEBERTA_V3_BASE, "microsoft/mdeberta-v3-base": _DEBERTA_V3_BASE}
DECLARED = {"activation": ("relu", "gelu"), "reads": ("vector", "windows")}  # the first is the default
LAYOUTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("layer1.bias", "layer1.weight", "layer2.bias", "layer2.weight"): ("layer1", "layer2"),
    ("bias", "weight"): ("",),
}


def load_hub_head(placed: Placed, settings: Settings) -> TokenModel:
    """Return the classifier; InputError if the tensors are not an encoder `model.*` and a head `fc.*`."""
    torch = import_torch(f"the model {placed.card.name!r}")
    device = choose_device(settings)
    facts = _facts(placed)
    order = label_order(placed, dict(facts["id2label"]))
    tensors = read_tensors(placed.folder / (placed.card.head or "model.safetensors"))
    encoder = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    config = values_config(placed, _base_values(placed, facts, encoder))
    check_window(placed, config)
    model = model_from_tensors(placed, config, encoder)
    head = torch.nn.Linear(int(config.hidden_size), len(order))
    _fill(placed, head, {k.removeprefix("fc."): v for k, v in tensors.items() if k.startswith("fc.")}, "fc.")
    settle(model, settings)
    settle(head, replace(settings, precision="float32"))
    tokenizer = read_tokenizer(placed)
    how = placed.card.input
    frame = special_tokens(tokenizer) if how.special_tokens else Frame()
    return TokenModel(
        card=placed.card,
        tokenise=window_tokeniser(tokenizer, how, limit=longest_input(config, tokenizer)),
        forward=_first_token_head(model, head, order),
        combine=combiner(how, frame.tokens),
        frame=frame.tokens,
        width=len(order),
        device=device,
        settings=settings,
        pad=pad_id(config, tokenizer),
    )


def _first_token_head(model: Any, head: Any, order: list[int]) -> Forward:
    def forward(ids: Any, mask: Any) -> Any:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return head(hidden[:, 0].float()).softmax(dim=-1)[:, order]

    return forward


def _facts(placed: Placed) -> Mapping[str, Any]:
    path = placed.folder / "config.json"
    facts = read_json(path) if path.is_file() else {}
    missing = [key for key in ("base_model", "id2label") if key not in facts]
    if missing:
        raise InputError(
            f"card {placed.card.name!r}: {path} has no {' and no '.join(missing)}; a hub-head's folder is "
            "one that PyTorchModelHubMixin wrote, see its config.json on the hub"
        )
    return facts


def _base_values(placed: Placed, facts: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the encoder's config.json."""
    own = [placed.folder / "base" / "config.json"]
    if placed.base is not None:
        own.insert(0, placed.base.folder / "config.json")
    for path in own:
        if path.is_file():
            return dict(read_json(path))
    name = str(facts["base_model"])
    if name not in BASES:
        raise InputError(
            f"card {placed.card.name!r}: the layers of base_model {name!r} are not known (known: "
            f"{', '.join(BASES)}); put its config.json into {own[-1].parent}, or name its folder as `base`"
        )
    if WORDS not in encoder:
        raise InputError(
            f"card {placed.card.name!r}: {placed.folder} has no tensor model.{WORDS} (found: "
            f"{', '.join(sorted(encoder)[:4]) or 'no model.*'}); is it a hub-head?"
        )
    return {**BASES[name], "vocab_size": int(encoder[WORDS].shape[0])}


def _fill(placed: Placed, layer: Any, tensors: Mapping[str, Any], prefix: str) -> None:
    """Copy `weight` and `bias` into a linear layer; InputError if they are absent or of another shape."""
    torch = import_torch("a head")
    for name, into in layer.named_parameters():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != tuple(into.shape):
            got = "is absent" if found is None else f"has shape {tuple(found.shape)}"
            raise InputError(
                f"card {placed.card.name!r}: tensor {prefix}{name} {got}, expected {tuple(into.shape)}; are "
                "the card's labels and its base those of this head?"
            )
        with torch.no_grad():
            into.copy_(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenHead:
    """A `TextModel`: the head's layers over the vectors of an embedder; computed on the CPU in float32."""

    card: ModelCard
    embedder: TextModel
    layers: Any
    threads: int

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return (D, K) numbers, NaN where there is no vector or the head's number is not finite."""
        torch = import_torch("a head")
        vectors = self.embedder.outputs(texts)
        with torch_threads(self.threads), torch.inference_mode():
            values = self.layers(torch.from_numpy(vectors.values)).numpy()
        bad = ~np.isfinite(values).all(axis=1)
        missing = dict(vectors.missing)
        own = int(bad.sum()) - sum(missing.values())
        if own > 0:
            missing["not_finite"] = missing.get("not_finite", 0) + own
        values[bad] = np.nan
        return Outputs(values=values, missing=dict(sorted(missing.items())))


def load_frozen_head(placed: Placed, settings: Settings) -> FrozenHead | TokenModel:
    """Return the embedder with the head; InputError if it has no base or another layout."""
    from quadmix.annotate.models.load import load_model  # it imports this module for its families

    if placed.base is None or placed.card.head is None:
        raise InputError(
            f"card {placed.card.name!r}: a frozen-head needs `base` (the embedder's card or folder) and "
            "`head` (the file with its weights)"
        )
    if placed.base.card.family != "embedding":
        raise InputError(
            f"card {placed.card.name!r}: its base {placed.base.card.name!r} is of the family "
            f"{placed.base.card.family}, expected embedding"
        )
    layers = read_layers(placed)
    by_window = _declared(placed)["reads"] == "windows"
    pooled = load_pooled(placed.base, settings) if by_window else None
    embedder = pooled or load_model(placed.base, settings)
    width = getattr(embedder, "width", None)
    if width is not None and width != layers[0].in_features:
        raise InputError(
            f"card {placed.card.name!r}: the head reads vectors of {layers[0].in_features} numbers, the "
            f"embedder {placed.base.card.name!r} gives {width}; name the embedder that it was trained on"
        )
    if pooled is not None:
        head, vectors = settle(layers, replace(settings, precision="float32")), pooled.forward
        return replace(
            pooled,
            card=placed.card,
            forward=lambda ids, mask: head(vectors(ids, mask)),
            width=layers[-1].out_features,
        )
    return FrozenHead(card=placed.card, embedder=embedder, layers=layers, threads=settings.threads)


def _declared(placed: Placed) -> dict[str, str]:
    """Return what the head's file declares; InputError for a value that is not known."""
    path = placed.folder / str(placed.card.head)
    stored = read_metadata(path)
    found = {key: stored.get(key, known[0]) for key, known in DECLARED.items()}
    for key, value in found.items():
        if value not in DECLARED[key]:
            raise InputError(
                f"card {placed.card.name!r}: the header of {path} declares {key} {value!r}, expected "
                f"{' or '.join(DECLARED[key])}; was the head written by a newer version?"
            )
    return found


def read_layers(placed: Placed) -> Any:
    """Return the file `card.head` as a torch module: linear layers with the declared activation between."""
    torch = import_torch("a head")
    path = placed.folder / str(placed.card.head)
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    prefixes = LAYOUTS.get(tuple(sorted(tensors)))
    if prefixes is None:
        raise InputError(
            f"card {placed.card.name!r}: {path} holds {', '.join(sorted(tensors)[:6])}; a frozen-head is "
            "laid out as layer1.weight, layer1.bias, layer2.weight, layer2.bias or as weight, bias"
        )
    between = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU}[_declared(placed)["activation"]]
    modules: list[Any] = []
    for prefix in prefixes:
        part = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(prefix)}
        outputs, inputs = part["weight"].shape
        layer = torch.nn.Linear(inputs, outputs)
        _fill(placed, layer, part, f"{prefix}." if prefix else "")
        modules += [between(), layer] if modules else [layer]
    outputs = modules[-1].out_features
    if outputs != max(1, len(placed.card.output.labels)):
        raise InputError(
            f"card {placed.card.name!r}: the head in {path} has {outputs} outputs, the card "
            f"{max(1, len(placed.card.output.labels))}; is it the card's head?"
        )
    return torch.nn.Sequential(*modules).eval().requires_grad_(False)
