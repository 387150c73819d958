"""A placed card -> a loaded model, one per process, and what of a card travels to workers.

In: a `Placed` (files found and checked, `fetch.py`). Out: a `TextModel` of the card's family. A worker loads
a model when its first batch needs it and keeps it; settings that differ are another model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadmix.annotate.models.base import Placed, Settings, TextModel
from quadmix.recipe.cards import ModelCard

_LOADED: dict[tuple[str, Settings], TextModel] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRecord:
    """A `Placed` as it is written into annotators/manifest.json; card: as in its YAML. pinned: did the card
    name the digests of its files before they were found?"""

    card: dict[str, Any]
    folder: str
    digest: str
    base: "PlacedRecord | None" = None
    pinned: bool = True


def to_record(placed: Placed, *, pinned: bool = True) -> PlacedRecord:
    """Return what a worker needs to load the same model."""
    return PlacedRecord(
        card=placed.card.model_dump(mode="json"),
        folder=str(placed.folder),
        digest=placed.digest,
        base=to_record(placed.base) if placed.base else None,
        pinned=pinned,
    )


def from_record(record: PlacedRecord) -> Placed:
    """Undo `to_record`; the files are not hashed again."""
    return Placed(
        card=ModelCard.model_validate(record.card),
        folder=Path(record.folder),
        digest=record.digest,
        base=from_record(record.base) if record.base else None,
    )


def load_model(placed: Placed, settings: Settings) -> TextModel:
    """Return the model of a placed card, loaded once per process.

    Raises InputError for files that are not what the card says, or a GPU that is not there,
    MissingExtraError where the family's library is not installed.
    """
    key = (placed.digest, settings)
    if key not in _LOADED:
        _LOADED[key] = _loader(placed.card.family)(placed, settings)
    return _LOADED[key]


def forget_models() -> None:
    """Free the memory of all models of this process."""
    _LOADED.clear()


def _loader(family: str) -> Callable[[Placed, Settings], TextModel]:
    # imported one by one: each family needs its own library
    if family == "fasttext":
        from quadmix.annotate.models.fasttext import load_fasttext as load
    elif family == "sequence":
        from quadmix.annotate.models.encoder import load_sequence as load
    elif family == "hub-head":
        from quadmix.annotate.models.heads import load_hub_head as load
    elif family == "frozen-head":
        from quadmix.annotate.models.heads import load_frozen_head as load
    elif family == "embedding":
        from quadmix.annotate.models.embedding import load_embedding as load
    elif family == "rater":
        from quadmix.annotate.models.rated import load_rater as load
    elif family == "yes-no":
        from quadmix.annotate.models.yes_no import load_yes_no as load
    else:
        from quadmix.annotate.models.ngram import load_ngram as load
    return load
