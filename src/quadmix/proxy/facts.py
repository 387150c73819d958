"""What a file of saved weights says of itself: the shapes of its tensors, and what the model was made with.

In: a safetensors file of ours. Out: its header; the numbers are not read, and torch is not needed. The facts
are one entry of the file's metadata (several would be written in no fixed order): a JSON of text by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from quadmix.errors import MissingExtraError, ProxyError
from quadmix.recipe import ModelSection, TrainingSection

_ENTRY = "quadmix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """shapes: of every tensor, by name. facts: as they were given when the file was written, {} in files
    from before there were any."""

    shapes: dict[str, tuple[int, ...]]
    facts: dict[str, str]


def model_facts(model: ModelSection, training: TrainingSection) -> dict[str, str]:
    """Return what is kept with a model's weights: its section and that of its training, as JSON."""
    return {"model": model.model_dump_json(), "training": training.model_dump_json()}


def facts_metadata(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a safetensors file that holds the facts."""
    return {_ENTRY: orjson.dumps(dict(facts), option=orjson.OPT_SORT_KEYS).decode()}


def read_header(path: str | Path) -> Header:
    """Read a file's header; ProxyError names one that is absent, cut or no safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "proxy", "reading saved weights") from error
    try:
        with safe_open(str(path), framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            entry = (file.metadata() or {}).get(_ENTRY, "{}")
        facts = {str(name): str(value) for name, value in orjson.loads(entry).items()}
    except (OSError, SafetensorError, orjson.JSONDecodeError, AttributeError) as error:
        raise ProxyError(
            f"weights {str(path)!r} cannot be read ({str(error).splitlines()[0]}); expected a whole "
            "safetensors file that a run wrote"
        ) from error
    return Header(shapes=shapes, facts=facts)
