"""A group of models in the middle of training, in one file that is whole or absent.

safetensors, with a JSON of the plain facts (key, step, points of the curve) as one more tensor. The key
names what is trained (jobs and setting): a checkpoint of anything else is ignored and replaced.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quadmix.errors import ProxyError
from quadmix.io.atomic import replacing
from quadmix.proxy.facts import facts_metadata

Points = list[tuple[int, list[float]]]


def write_checkpoint(path: str, key: str, tensors: Mapping[str, Tensor], step: int, points: Points) -> None:
    """Write the state after `step` steps, atomically."""
    facts = orjson.dumps({"key": key, "step": step, "points": points})
    named = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    named["facts"] = torch.frombuffer(bytearray(facts), dtype=torch.uint8)
    with replacing(path) as temporary:
        save_file(named, temporary)


@torch.no_grad()
def read_checkpoint(path: str, key: str, tensors: Mapping[str, Tensor]) -> tuple[int, Points]:
    """Copy a checkpoint into `tensors` and return its step and points; (0, []) if there is none to use."""
    if not Path(path).exists():
        return 0, []
    try:
        stored: dict[str, Tensor] = load_file(path)
        facts: dict[str, Any] = orjson.loads(bytes(stored.pop("facts").tolist()))
    except (SafetensorError, KeyError, orjson.JSONDecodeError):
        return 0, []  # not a checkpoint of ours: training starts anew and replaces it
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if facts.get("key") != key or {n: t.shape for n, t in stored.items()} != shapes:
        return 0, []
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
    return int(facts["step"]), [(int(at), [_number(v) for v in values]) for at, values in facts["points"]]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)  # JSON has no NaN, the curve of a dead model does


def write_weights(path: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Write one model's weights in bfloat16, for losses on other targets later.

    facts: kept in the file's header; see `facts.model_facts`.
    """
    named = {name: t.detach().cpu().bfloat16().contiguous() for name, t in tensors.items()}
    with replacing(path) as temporary:
        save_file(named, temporary, metadata=facts_metadata(facts) if facts else None)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read one model's weights back as float32; ProxyError names a file that is absent or unsound."""
    try:
        stored: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ProxyError(
            f"weights {str(path)!r} cannot be read ({str(error).splitlines()[0]}); expected the "
            "safetensors that proxy.save_weights keeps"
        ) from error
    return {name: tensor.float() for name, tensor in stored.items()}
