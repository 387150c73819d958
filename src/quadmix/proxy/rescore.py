"""Saved proxies measured on targets that they were not measured on when they were trained.

In: trials, the folder with their weights (`proxy.save_weights`), the setting of the run that asks. Out: the
same trials in order with losses on the setting's targets. Many models are loaded into one batched model, as
in training. The weights on disk are bfloat16: on the targets of old the losses come back to within
`TOLERANCE` of themselves, relatively (held by tests/proxy/test_proxy_rescore.py). Eight 0.3M proxies of
200,000 tokens: within 1e-4, an error of 0.00014 bits per byte beside a spread of 0.09 between mixtures.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quadmix.engine.tasks import LOCAL, Place, run_tasks
from quadmix.errors import MissingExtraError, ProxyError
from quadmix.proxy.setting import ProxySetting, check_files
from quadmix.proxy.targets import TargetSet, open_targets
from quadmix.recipe import ModelSection
from quadmix.types import Loss, Trial

if TYPE_CHECKING:
    from torch import Tensor

    from quadmix.proxy.model import Weights

TOLERANCE = 5e-4  # of a loss, relatively, by rounding the weights to bfloat16
_REFUSED = "cannot be scored again: "


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    trials: tuple[Trial, ...]
    weights: str
    setting: ProxySetting
    targets: tuple[str, ...]


def weights_path(folder: str | Path, trial_id: str) -> Path:
    """Return where a trial's weights lie, if they were saved."""
    return Path(folder, f"{trial_id}.safetensors")


def rescore(
    trials: Sequence[Trial],
    weights_folder: str | Path,
    setting: ProxySetting,
    *,
    targets: Collection[str] | None = None,
    group: int = 8,
    place: Place = LOCAL,
    on_done: Callable[[int], None] | None = None,
) -> list[Trial]:
    """Return the trials with losses on `targets` of the setting (all of them, if left out) beside theirs.

    Weights that are absent, unsound, or of another shape than the setting's model are refused: that trial
    comes back as failed, with the reason. group: models measured together; on_done hears how many are done.
    Raises ProxyError for a target that the setting does not have, or if its files do not belong together.
    """
    check_files(setting)
    names = [t.name for t in open_targets(setting.targets)]
    if unknown := sorted(set(targets or ()) - set(names)):
        raise ProxyError(
            f"target {unknown[0]!r} is not in {setting.targets!r}; expected some of {', '.join(names)}"
        )
    wanted = tuple(n for n in names if targets is None or n in targets)
    tasks = [
        _Group(
            trials=tuple(trials[i : i + group]), weights=str(weights_folder), setting=setting, targets=wanted
        )
        for i in range(0, len(trials), group)
    ]
    tell = on_done or (lambda _: None)
    done = run_tasks(rescore_task, tasks, place=place, on_done=lambda _, part: tell(len(part)))
    return [trial for part in done for trial in part]


def rescore_task(task: _Group) -> list[Trial]:
    """Measure one group with one thread, as it was trained."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "scoring proxies again") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _rescore(task)
    finally:
        torch.set_num_threads(threads)


def _rescore(task: _Group) -> list[Trial]:
    setting, out = task.setting, list(task.trials)
    names = [trial.trial_id for trial in out]
    loaded = load_models(
        names, task.weights, setting.model, setting.vocab_size, setting.device, domains=len(setting.domains)
    )
    for place, name in enumerate(names):
        if name in loaded.refused:
            out[place] = replace(out[place], status="failed", reason=f"{_REFUSED}{loaded.refused[name]}")
    if loaded.weights is not None:
        for place, losses in zip(loaded.places, _measure(loaded.weights, task), strict=True):
            out[place] = _merged(out[place], losses)
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModels:
    """Saved models as one batched model. places: of its K models in the names asked for. weights: None if
    there are none. refused: why, by name, for weights that are absent, unsound or of another shape."""

    weights: "Weights | None"
    places: tuple[int, ...]
    refused: dict[str, str]


def load_models(
    names: Sequence[str], folder: str | Path, model: ModelSection, vocab_size: int, device: str, *,
    domains: int = 0,
) -> LoadedModels:  # fmt: skip
    """Load the saved weights `folder`/<name>.safetensors of models of one shape onto a device.

    domains: that the models' gates tell apart, if they have any.
    """
    from quadmix.proxy.checkpoint import read_weights

    expected = _shapes(model, vocab_size, domains)
    loaded, refused = dict[int, dict[str, "Tensor"]](), dict[str, str]()
    for place, name in enumerate(names):
        path = weights_path(folder, name)
        try:
            tensors = read_weights(path)
            _check_shapes(path, {key: tuple(t.shape) for key, t in tensors.items()}, expected)
            loaded[place] = tensors
        except ProxyError as error:
            refused[name] = str(error)
    weights = _stacked(list(loaded.values()), device) if loaded else None
    return LoadedModels(weights=weights, places=tuple(loaded), refused=refused)


def _shapes(model: ModelSection, vocab_size: int, domains: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of one model, without the model axis."""
    import torch

    from quadmix.proxy.model import initial_weights

    one = initial_weights(model, vocab_size, [0], torch.device("cpu"), domains=domains)
    return {name: tuple(tensor.shape[1:]) for name, tensor in one.named().items()}


def _check_shapes(
    path: Path, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ProxyError(
                f"weights {str(path)!r} have {name} of shape {found.get(name, 'none')}, the model of this "
                f"run has {expected.get(name, 'none')}; expected weights of the same model and tokenizer"
            )


def _stacked(loaded: Sequence[dict[str, "Tensor"]], device: str) -> "Weights":
    import torch

    from quadmix.proxy.device import choose_device
    from quadmix.proxy.model import Weights

    chosen = choose_device(device)
    return Weights(**{name: torch.stack([one[name] for one in loaded]).to(chosen) for name in loaded[0]})


def _measure(weights: "Weights", task: _Group) -> list[dict[str, Loss]]:
    from quadmix.proxy.device import choose_dtype
    from quadmix.proxy.losses import measure

    dtype = choose_dtype(task.setting.training.precision, weights.embedding.device)
    out: list[dict[str, Loss]] = [{} for _ in range(len(weights.embedding))]
    for target in _chosen(task):
        for losses, loss in zip(out, measure(weights, target, task.setting.model, dtype), strict=True):
            losses[target.name] = loss
    return out


def _chosen(task: _Group) -> list[TargetSet]:
    return [t for t in open_targets(task.setting.targets) if t.name in task.targets]


def _merged(trial: Trial, losses: dict[str, Loss]) -> Trial:
    """Return the trial with more losses; not finite ones make it a failed one (promise P11)."""
    for name, loss in losses.items():
        if not math.isfinite(loss.bits_per_byte):
            reason = f"{_REFUSED}its loss on {name!r} is {loss.bits_per_byte}"
            return replace(trial, status="failed", reason=reason)
    return replace(trial, losses={**trial.losses, **losses})
