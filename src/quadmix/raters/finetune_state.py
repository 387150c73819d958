"""The state of a fine-tuning, and its checkpoint: one file that is whole or absent.

In: a `Training`. Out: `state.safetensors` with the weights, AdamW's moments and, in its header, the plain
facts as JSON; `best-STEP.safetensors` with the weights of the best evaluation so far. The state names that
step, and is written after it; older best weights go after that, so that every crash leaves a pair that fits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from quadmix.annotate.models.devices import import_torch
from quadmix.annotate.models.tensors import read_metadata, read_tensors
from quadmix.codec import from_json, to_json
from quadmix.errors import IdentityError, MissingExtraError
from quadmix.io.atomic import replacing, sweep
from quadmix.raters.finetune_batches import FineTuning
from quadmix.raters.finetune_model import Ranker, Tokens
from quadmix.raters.table import Pairs, Texts

STATE, BEST = "state.safetensors", "best-{}.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An evaluation after `step` steps. loss: kind -> mean loss per training pair since the one before (of a
    parallel pair L_par minus its minimum, 2 ln 2). accuracy: mean over `languages`, each the share of held
    pairs with p != 0.5 that are ordered rightly; NaN: there are none."""

    step: int
    loss: dict[str, float]
    accuracy: float
    languages: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The plain facts of a checkpoint. sums, counts: (3,) of the losses by kind since the last evaluation."""

    identity: str
    step: int = 0
    history: tuple[Point, ...] = ()
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    counts: tuple[int, ...] = (0, 0, 0)


@dataclass(slots=True, kw_only=True, eq=False)
class Training:
    """train, held: pairs with tokens on both sides; keys: of `train`, see `pair_keys`. order: the
    places in `train` that all steps read, see `batch_order`."""

    ranker: Ranker
    tokens: Tokens
    texts: Texts
    train: Pairs
    held: Pairs
    keys: NDArray[np.uint64]
    order: NDArray[np.int64]
    settings: FineTuning
    optimizer: Any
    reached: Reached

    @property
    def steps(self) -> int:
        return -(-len(self.order) // self.settings.batch_pairs)


def make_optimizer(ranker: Ranker, training: FineTuning) -> Any:
    """AdamW with two learning rates; vectors (biases, norms) do not decay, as usual for encoders."""
    torch = import_torch("fine-tuning")
    groups: list[dict[str, Any]] = []
    for part, peak in (("encoder", training.encoder_rate), ("head", training.head_rate)):
        mine = [p for n, p in ranker.named().items() if n.startswith(part)]
        for decay, some in (
            (training.weight_decay, [p for p in mine if p.ndim > 1]),
            (0.0, [p for p in mine if p.ndim < 2]),
        ):
            if some:
                groups.append({"params": some, "weight_decay": decay, "peak": peak, "lr": peak})
    return torch.optim.AdamW(groups)


def best_point(history: tuple[Point, ...]) -> Point:
    """Return the first of the most accurate evaluations, the last one where no accuracy is known."""
    known = [point for point in history if not math.isnan(point.accuracy)]
    return max(known, key=lambda point: point.accuracy) if known else history[-1]


def write_weights(path: Path, tensors: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "fine-tuning") from error
    with replacing(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"format": "pt", **facts})


def write_state(work: Path, state: Training) -> None:
    """Commit weights, optimizer and facts in one file; then the weights that are no longer the best go."""
    named = state.ranker.named()
    tensors = dict(named)
    for name, parameter in named.items():
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"adam.{key}.{name}"] = value
    write_weights(work / STATE, tensors, {"reached": orjson.dumps(to_json(state.reached)).decode()})
    kept = BEST.format(best_point(state.reached.history).step) if state.reached.history else ""
    for file in work.glob(BEST.format("*")):
        if file.name != kept:
            file.unlink()


def read_state(work: Path, state: Training) -> None:
    """Go on from the checkpoint in `work`, if there is one; IdentityError if it is of another training."""
    sweep(work, "*.safetensors")
    path = work / STATE
    if not path.is_file():
        return
    stored = read_tensors(path)
    where = f"{path} (remove it to train anew)"
    reached = from_json(Reached, orjson.loads(read_metadata(path).get("reached", "{}")), where)
    if reached.identity != state.reached.identity:
        raise IdentityError(
            f"{path} is the checkpoint of another training (texts, pairs, model, device or settings differ); "
            "name another work folder, or remove this one"
        )
    copy_into(state.ranker, stored)
    for name, parameter in state.ranker.named().items():
        moments: dict[str, Any] = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := stored.get(f"adam.{key}.{name}")) is not None:
                moments[key] = value.to(parameter.device) if value.ndim else value
        if moments:
            state.optimizer.state[parameter] = moments
    state.reached = reached


def copy_into(ranker: Ranker, stored: Mapping[str, Any]) -> None:
    torch = import_torch("fine-tuning")
    with torch.no_grad():
        for name, parameter in ranker.named().items():
            parameter.copy_(stored[name])


def clear(work: Path) -> None:
    for pattern in (STATE, BEST.format("*")):
        for file in work.glob(pattern):
            file.unlink()
