"""Small fastText models trained on the spot, saved as the library saves them."""

import random
from pathlib import Path

import fasttext

from quadmix.annotate.models.base import Placed
from quadmix.annotate.models.fetch import place
from quadmix.recipe.cards import ModelCard

WORDS = {
    "__label__hq": [
        "theorem",
        "proof",
        "energy",
        "river",
        "history",
        "cell",
        "planet",
        "reason",
        "therefore",
        "measure",
    ],
    "__label__cc": [
        "click",
        "cheap",
        "buy",
        "casino",
        "login",
        "cookie",
        "free",
        "bonus",
        "discount",
        "subscribe",
    ],
    "__label__zz": ["dough", "oven", "salt", "pan", "butter", "flour", "whisk", "sugar", "yeast", "crust"],
}
SHARED = ["the", "of", "and", "a", "to", "in", "is"]


def sentences(label: str, count: int, seed: int = 0) -> list[str]:
    draw = random.Random(f"{seed}{label}")
    return [
        " ".join(draw.choice(WORDS[label] + SHARED) for _ in range(draw.randint(8, 40))) for _ in range(count)
    ]


def train(folder: Path, labels: list[str], *, loss: str = "softmax", quantise: bool = False) -> Path:
    """Return the .bin of a model with these labels (about 350 kB); bigrams as in DCLM.

    Ten threads, for the library sets a tenth of its table per thread and leaves the rest as it finds it.
    """
    rows = [f"{label} {line}" for label in labels for line in sentences(label, 150)]
    random.Random(1).shuffle(rows)
    text = folder / "train.txt"
    text.write_text("\n".join(rows) + "\n", encoding="utf-8")
    model = fasttext.train_supervised(
        input=str(text), dim=40, bucket=2_000, wordNgrams=2, minn=0, maxn=0, epoch=5, lr=0.5, loss=loss,
        thread=10, verbose=0,
    )  # fmt: skip
    if quantise:
        model.quantize(input=str(text), thread=1, verbose=0)
    file = folder / ("model.ftz" if quantise else "model.bin")
    model.save_model(str(file))
    return file


def card_for(labels: list[str], **changes: object) -> ModelCard:
    data = {
        "name": "small", "family": "fasttext", "role": "quality", "model": "model.bin", "licence": "none",
        "source": "made here", "description": "a test", "files": {"model.bin": None},
        "input": {"one_line": True},
        "output": {"kind": "classes", "labels": labels, "positive": labels[0], "negative": labels[1]},
    }  # fmt: skip
    return ModelCard.model_validate(data | changes)


def placed(file: Path, labels: list[str], **changes: object) -> Placed:
    return place(card_for(labels, **changes), path=file)
