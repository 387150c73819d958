"""Predictions of many tasks as one Parquet file, one row per task, mode, estimator, language and item."""

from collections.abc import Sequence
from pathlib import Path

from quadmix.evaluate.mubench.items import Predictions

COLUMNS = ("task", "mode", "language", "estimator", "id", "chosen", "label", "options")


def read_predictions(path: str | Path) -> list[Predictions]:
    """Read predictions back; see `write_predictions`."""
    raise NotImplementedError


def write_predictions(path: str | Path, predictions: Sequence[Predictions]) -> None:
    """Write predictions as one Parquet file with `COLUMNS`, atomically."""
    raise NotImplementedError
