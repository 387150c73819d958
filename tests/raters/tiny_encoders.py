"""Encoders of two architectures with a few thousand weights, and pairs of texts that are easy to order."""

from pathlib import Path
from typing import Any

import numpy as np
import transformers
from annotate.models.encoder_world import SMALL, WORDS, card, save_tokenizer, spread

from quadmix.annotate.models.base import Placed
from quadmix.annotate.models.fetch import place
from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs, Texts

GOOD, BAD = WORDS[:25], WORDS[25:]
LANGUAGES = ("en", "de", "sw")
ARCHITECTURES = ("xlm-roberta", "modernbert")


def save_encoder(folder: Path, kind: str = "xlm-roberta") -> Any:
    """Save a random encoder with its tokenizer; return the model."""
    if kind == "modernbert":
        # local attention over 16 tokens in every other layer: it must not see padding either
        config = transformers.ModernBertConfig(
            **SMALL, global_attn_every_n_layers=2, local_attention=16, cls_token_id=2, sep_token_id=3,
            bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        model = spread(transformers.ModernBertModel(config))
    else:
        more = {"max_position_embeddings": 65, "type_vocab_size": 1}
        model = spread(
            transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**{**SMALL, **more}))
        )  # with a pooler, as the published ones have
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def place_encoder(folder: Path, **how: Any) -> Placed:
    """Return the encoder as an embedding card that was found and checked."""
    made = card("embedding", output={"kind": "vector"}, input={"pooling": "mean", **how}, model=str(folder))
    return place(made, path=folder)


def some_texts(count: int, *, seed: int = 0) -> tuple[Texts, Any]:
    """Return texts of 4 to 30 words and (D,) the share of good words in each."""
    rng = np.random.default_rng(seed)
    share, made = rng.uniform(size=count), list[str]()
    for i in range(count):
        length = int(rng.integers(4, 31))
        good = rng.uniform(size=length) < share[i]
        share[i] = good.mean()
        made.append(" ".join(np.where(good, rng.choice(GOOD, length), rng.choice(BAD, length))))
    ids = tuple(f"t{i}" for i in range(count))
    languages = tuple(LANGUAGES[i % 3] for i in range(count))
    return Texts(ids=ids, source=ids, origin=("",) * count, language=languages, text=tuple(made)), share


def some_pairs(share: Any, count: int, *, held: int, seed: int = 0) -> Pairs:
    """Return different pairs, 40 % within a language, 40 % between two, 20 % parallel; the last `held` are of
    texts that no other pair reads. The side with more good words is better; parallel sides have as many."""
    rng = np.random.default_rng(seed)
    split = 3 * len(share) // 4
    chosen: dict[tuple[int, int], int] = {}
    while len(chosen) < count + held:
        of = (MONO, CROSS, MONO, CROSS, PARALLEL)[len(chosen) % 5]
        low, high = (0, split) if len(chosen) < count else (split, len(share))
        one, two = rng.integers(low, high, 2).tolist()
        alike = abs(share[one] - share[two]) < 0.1
        known = (one, two) in chosen or (two, one) in chosen or one == two
        if not known and (one % 3 == two % 3) == (of == MONO) and alike == (of == PARALLEL):
            chosen[one, two] = of
    a, b = (np.array(side, np.int32) for side in zip(*chosen, strict=True))
    kind = np.array(list(chosen.values()), np.int8)
    p = np.where(kind == PARALLEL, 0.5, 1 / (1 + np.exp(-8 * (share[a] - share[b]))))
    weight = np.where(kind == PARALLEL, 2.0, 1.0)
    return Pairs(a=a, b=b, p=p, weight=weight, kind=kind, held=np.arange(count + held) >= count)


def encoder_card(folder: Path) -> Path:
    """Save a tiny encoder in a folder and return the card of an embedding model that names it."""
    save_encoder(folder / "encoder")
    path = folder / "encoder.yaml"
    path.write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {folder / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean, window: 64}\noutput: {kind: vector}\n",
        "utf-8",
    )
    return path
