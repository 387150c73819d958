"""Encoders that turn a text into one vector of length one.

In: a folder with config.json, tokenizer and weights of an `AutoModel`. Out: (D, H) vectors, L2-normalised;
of several windows the joined vector is normalised again.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.batches import Combine, Forward, Lengths, Numbers, TokenModel
from quadmix.annotate.models.devices import choose_device, import_torch, settle
from quadmix.annotate.models.pretrained import (
    check_window,
    longest_input,
    pad_id,
    read_config,
    read_model,
    read_tokenizer,
)
from quadmix.annotate.models.windows import Frame, combiner, special_tokens, window_tokeniser
from quadmix.errors import InputError
from quadmix.io.atomic import read_json

MODES = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last",
}  # fmt: skip


def load_embedding(placed: Placed, settings: Settings) -> TokenModel:
    """Return the model; InputError if the folder does not hold one, or pools otherwise than the card says."""
    pooled = load_pooled(placed, settings)
    return replace(pooled, forward=_unit(pooled.forward), combine=_normalised(pooled.combine))


def load_pooled(placed: Placed, settings: Settings) -> TokenModel:
    """Return the model as it pools one window, its vectors not normalised; InputError as above."""
    device = choose_device(settings)
    config = read_config(placed)
    check_window(placed, config)
    _check_sentence_transformer(placed)
    model = read_model(placed, "AutoModel", unused="pooler.")
    tokenizer = read_tokenizer(placed)
    model.config.use_cache = False
    how = placed.card.input
    frame = special_tokens(tokenizer) if how.special_tokens else Frame()
    settle(model, settings)
    return TokenModel(
        card=placed.card,
        tokenise=window_tokeniser(tokenizer, how, limit=longest_input(config, tokenizer)),
        forward=_forward(model, how.pooling),
        combine=combiner(how, frame.tokens),
        frame=frame.tokens,
        width=int(config.hidden_size),
        device=device,
        settings=settings,
        pad=pad_id(model.config, tokenizer),
    )


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """Return (B, H) float32, one vector per window, of its tokens' (B, T, H); mask: (B, T), 1 = token, 0 =
    padding on the right. pooling: cls (the first token), mean (over tokens) or last."""
    torch = import_torch("an embedding")
    hidden = hidden.float()
    if pooling == "mean":
        weights = mask[:, :, None].float()
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    if pooling == "last":
        return hidden[torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1]
    return hidden[:, 0]


def _forward(model: Any, pooling: str) -> Forward:
    def forward(ids: Any, mask: Any) -> Any:
        return pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask, pooling)

    return forward


def _unit(forward: Forward) -> Forward:
    torch = import_torch("an embedding")
    return lambda ids, mask: torch.nn.functional.normalize(forward(ids, mask), dim=1)


def _normalised(combine: Combine) -> Combine:
    def joined(values: Numbers, lengths: Lengths) -> Numbers:
        vector = combine(values, lengths)
        return vector if len(values) == 1 else (vector / np.linalg.norm(vector)).astype(np.float32)

    return joined


def _check_sentence_transformer(placed: Placed) -> None:
    """sentence-transformers writes beside a model how its vectors are made; a card must not say otherwise."""
    pooling = placed.folder / "1_Pooling" / "config.json"
    if pooling.is_file():
        stored = read_json(pooling)
        found = [mode for key, mode in MODES.items() if stored.get(key)]
        wanted = placed.card.input.pooling
        if found != [wanted]:
            raise InputError(
                f"card {placed.card.name!r}: input.pooling is {wanted}, but {pooling} says "
                f"{' and '.join(found) or 'another way'}; set input.pooling to that, or use another model"
            )
    modules = placed.folder / "modules.json"
    if modules.is_file():
        names = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in read_json(modules)]
        other = [name for name in names if name not in ("Transformer", "Pooling", "Normalize")]
        if other:
            raise InputError(
                f"card {placed.card.name!r}: {modules} puts {', '.join(other)} after the pooling, "
                "which is not supported; use a model of Transformer, Pooling and Normalize"
            )
