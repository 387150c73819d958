"""Sequence classifiers and regressors of transformers: FineWeb-Edu, DeBERTa classes, QuRater, Meta-rater.

In: a folder with config.json, tokenizer and weights of a `...ForSequenceClassification`. Out: per text the
logits (card: number) or the probabilities (card: classes), in the order of the card's labels.
"""

import re
from typing import Any

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.batches import Forward, TokenModel
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

HEAD = "ForSequenceClassification"
UNNAMED = re.compile(r"LABEL_\d+")


def load_sequence(placed: Placed, settings: Settings) -> TokenModel:
    """Return the model; InputError if the folder holds another architecture or other labels than the card."""
    device = choose_device(settings)  # first: a GPU that is not there should not cost the loading
    config = read_config(placed)
    _check_architecture(placed, config)
    check_window(placed, config)
    order = label_order(placed, dict(config.id2label))
    model = read_model(placed, "AutoModelForSequenceClassification")
    tokenizer = read_tokenizer(placed)
    model.config.use_cache = False
    how = placed.card.input
    frame = special_tokens(tokenizer) if how.special_tokens else Frame()
    settle(model, settings, last=last_layer(model, len(order)))
    return TokenModel(
        card=placed.card,
        tokenise=window_tokeniser(tokenizer, how, limit=longest_input(config, tokenizer)),
        forward=_forward(model, order, softmax=placed.card.output.kind == "classes"),
        combine=combiner(how, frame.tokens),
        frame=frame.tokens,
        width=len(order),
        device=device,
        settings=settings,
        pad=pad_id(model.config, tokenizer),
    )


def label_order(placed: Placed, names: dict[Any, str]) -> list[int]:
    """Return, for each label of the card, which output of the model it is.

    names: output -> its name, as config.json has it; names like LABEL_0 say nothing and are not compared.
    Capitals, blanks and signs make no difference.
    """
    labels = placed.card.output.labels
    found = [names[key] for key in sorted(names, key=int)]
    if len(found) != max(1, len(labels)):
        raise InputError(
            f"card {placed.card.name!r}: the model in {placed.folder} has {len(found)} outputs "
            f"({', '.join(found[:6])}{', ...' if len(found) > 6 else ''}), the card {max(1, len(labels))} "
            f"({', '.join(labels[:6]) or 'one number'}); is it the card's model?"
        )
    if len(found) == 1 or all(UNNAMED.fullmatch(name) for name in found):
        return list(range(len(found)))
    plain, wanted = [_plain(name) for name in found], [_plain(name) for name in labels]
    if set(plain) != set(wanted) or len(set(plain)) < len(found):
        only = sorted(set(found) ^ set(labels))
        raise InputError(
            f"card {placed.card.name!r}: output.labels and the labels in {placed.folder}/config.json differ "
            f"in {', '.join(only[:6])}; the model's are, in order: {', '.join(found)}"
        )
    return [plain.index(name) for name in wanted]


def _plain(name: str) -> str:
    """`Food_and_Drink` and `food and drink` are one label."""
    return "".join(c for c in name.casefold() if c.isalnum())


def last_layer(model: Any, outputs: int) -> Any:
    """Return the linear layer that makes the outputs, None if there is none with so many."""
    torch = import_torch("a model of texts")
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == outputs]
    return layers[-1] if layers else None


def _check_architecture(placed: Placed, config: Any) -> None:
    known: list[str] = list(config.architectures or [])
    if known and not any(name.endswith(HEAD) for name in known):
        raise InputError(
            f"card {placed.card.name!r}: {placed.folder} holds a {', '.join(known)}, the family "
            f"sequence needs a ...{HEAD}; take the card whose family fits (hub-head, embedding, yes-no, ...)"
        )


def _forward(model: Any, order: list[int], *, softmax: bool) -> Forward:
    plain = order == list(range(len(order)))
    pooled = _pools_by_mask(model)

    def forward(ids: Any, mask: Any) -> Any:
        if pooled:
            hidden = model.get_decoder()(ids, attention_mask=mask).last_hidden_state
            last = hidden[range(len(ids)), mask.sum(dim=1) - 1]
            logits = model.score(last)
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits
        logits = logits.float() if plain else logits.float()[:, order]
        return logits.softmax(dim=-1) if softmax else logits

    return forward


def _pools_by_mask(model: Any) -> bool:
    """A decoder that knows no padding token cannot tell where a text ends; the mask can."""
    return model.config.pad_token_id is None and hasattr(model, "score") and hasattr(model, "get_decoder")
