"""Does a model here give what it gave where its card was recorded? Twenty fixed texts say so.

In: a placed model. Out: its outputs on `data/cards/texts.yaml`, or their largest difference from the card's.
A wrong template, truncation, label order or precision shows here and nowhere else.
"""

import importlib.metadata
from dataclasses import dataclass

import numpy as np

from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.rater import Asked, Numbers, prepare_text, template_columns
from quadmix.recipe.cards import Golden, fixed_texts

SHOWN = 32  # numbers of a vector that are kept
_LIBRARIES = ("torch", "transformers", "fasttext-numpy2", "kenlm")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCheck:
    """passed: None where the card holds no outputs. worst: largest difference; text: which text has it."""

    model: str
    passed: bool | None
    worst: float
    text: int
    told: str


def golden_outputs(asked: Asked) -> Numbers:
    """Return (20, K) outputs of the fixed texts, K at most 32."""
    card = asked.placed.card
    columns = dict.fromkeys(template_columns(card.input.template), "https://www.example.org/page")
    texts = [prepare_text(card, text, columns) for text in fixed_texts()]
    return load_model(asked.placed, asked.settings).outputs(texts).values[:, :SHOWN]


def record_golden(asked: Asked, *, tolerance: float = 0.01) -> Golden:
    """Return the outputs as a card holds them."""
    rows = golden_outputs(asked)
    return Golden(
        outputs=tuple(tuple(round(float(v), 6) for v in row) for row in rows),
        tolerance=tolerance,
        recorded_with=_recorded_with(asked),
    )


def check_golden(asked: Asked) -> GoldenCheck:
    """Hold the outputs against the card's."""
    card, found = asked.placed.card, golden_outputs(asked)
    if card.golden is None:
        told = "its card holds no outputs to compare with; `quadmix raters golden` records them"
        return GoldenCheck(model=card.name, passed=None, worst=float("nan"), text=-1, told=told)
    wanted = np.array(card.golden.outputs, np.float64)
    if wanted.shape != found.shape:
        told = f"gives outputs of shape {found.shape}, its card holds {wanted.shape}"
        return GoldenCheck(model=card.name, passed=False, worst=float("inf"), text=-1, told=told)
    difference = np.abs(found - wanted)
    difference[np.isnan(found) & np.isnan(wanted)] = 0.0
    difference = np.where(np.isnan(difference), np.inf, difference)
    text, worst = int(difference.max(axis=1).argmax()), float(difference.max())
    passed = worst <= card.golden.tolerance
    told = (
        f"within {worst:.2g} of its card's outputs on {len(wanted)} texts, as it should be"
        if passed
        else f"differs by {worst:.3g} on text {text} (tolerance {card.golden.tolerance:g}); recorded with "
        f"{card.golden.recorded_with}, here {_recorded_with(asked)}. Template, truncation, label order and "
        "precision are what to look at; do not use its scores"
    )
    return GoldenCheck(model=card.name, passed=passed, worst=worst, text=text, told=told)


def _recorded_with(asked: Asked) -> str:
    versions: list[str] = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{', '.join(versions)}, device {asked.settings.device}, precision {asked.settings.precision}"
