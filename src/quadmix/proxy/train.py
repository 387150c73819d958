"""Train K proxies as one batched model: the steps, what is watched, what survives a kill.

In: token streams, seeds, a setting. Out: weights and what happened to each model. A model whose loss or
gradient is not finite is frozen; its neighbours never notice. On a GPU the step is captured once as a CUDA
graph and replayed, because models this small are bound by kernel launches.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quadmix.proxy.checkpoint import read_checkpoint, write_checkpoint
from quadmix.proxy.device import choose_device, choose_dtype, is_out_of_memory
from quadmix.proxy.gates import parted
from quadmix.proxy.head import head_loss
from quadmix.proxy.loader import batches
from quadmix.proxy.model import Weights, hidden_states, initial_weights
from quadmix.proxy.optim import Optimizer, clip_models, rate_factor, update
from quadmix.proxy.order import TokenStream
from quadmix.proxy.setting import ProxySetting

_CURVE_POINTS = 20
_AVERAGED = 100  # the average takes the weights of about this many steps
_LEAST_BETWEEN = 20  # checkpoints of large groups may cost a twentieth of the time, not more
_EAGER_STEPS = 3  # before a CUDA graph is captured: libraries set themselves up in the first ones


@dataclass(slots=True, kw_only=True)
class Progress:
    """What happened to each model. alive: (K,) bool. died_at, loss, norm: (K,) the step of death and the
    values met there. total: (K,) nats since the last point of the curve. points: (step, K bits per token)."""

    alive: Tensor
    died_at: Tensor
    loss: Tensor
    norm: Tensor
    total: Tensor
    points: list[tuple[int, list[float]]] = field(default_factory=list[tuple[int, list[float]]])


@dataclass(slots=True, kw_only=True)
class TrainState:
    """A batch of models in training; `step` steps are done. average: by weight name, empty without one."""

    weights: Weights
    optimizer: Optimizer
    progress: Progress
    average: dict[str, Tensor]
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name; writing into them restores it."""
        named = {f"weights.{name}": tensor.detach() for name, tensor in self.weights.named().items()}
        named |= {f"first.{name}": tensor for name, tensor in self.optimizer.first.items()}
        named |= {f"second.{name}": tensor for name, tensor in self.optimizer.second.items()}
        named |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        named |= {f"progress.{name}": getattr(self.progress, name) for name in _WATCHED}
        return named | {"optimizer.steps": self.optimizer.steps}


_WATCHED = ("alive", "died_at", "loss", "norm", "total")


def train_weights(
    streams: Sequence[TokenStream],
    seeds: Sequence[int],
    setting: ProxySetting,
    *,
    rates: Tensor | None = None,
    tell: Callable[[float], None] | None = None,
    checkpoint: str | None = None,
    every: float = math.inf,
    key: str = "",
) -> tuple[Weights, Progress]:
    """Train one model per stream.

    rates: (K,) peak learning rate of each model, the recipe's if left out. checkpoint: a file that is
    written about `every` seconds (0: every step) and from which training goes on, if it was written under
    the same `key`.
    """
    device = choose_device(setting.device)
    state = start(setting, seeds, device)
    if checkpoint:
        state.step, state.progress.points = read_checkpoint(checkpoint, key, state.tensors())
    peak = torch.full((len(streams),), setting.training.peak_lr) if rates is None else rates
    peak, take, saved = peak.to(device), stepper(state, setting), time.monotonic()
    with batches(streams, setting, device, first=state.step) as loader:
        for batch in loader:
            take(batch, peak * rate_factor(state.step, setting.steps, setting.training))
            state.step += 1
            _note_point(state.progress, state.step, setting.steps)
            average(state, setting)
            if tell:
                tell(state.step / setting.steps)
            if checkpoint and state.step < setting.steps and time.monotonic() - saved >= every:
                begun = time.monotonic()
                write_checkpoint(checkpoint, key, state.tensors(), state.step, state.progress.points)
                saved = time.monotonic()
                every = every and max(every, _LEAST_BETWEEN * (saved - begun))
    with torch.no_grad():
        for name, tensor in state.average.items():
            state.weights.named()[name].copy_(tensor)
    return state.weights, state.progress


def start(setting: ProxySetting, seeds: Sequence[int], device: torch.device) -> TrainState:
    """Return the state before the first step."""
    weights = initial_weights(
        setting.model, setting.vocab_size, seeds, device, domains=len(setting.domains)
    )  # fmt: skip
    zeros = torch.zeros(len(seeds), device=device)
    progress = Progress(
        alive=torch.ones(len(seeds), dtype=torch.bool, device=device),
        died_at=zeros.clone(), loss=zeros.clone(), norm=zeros.clone(), total=zeros.clone(),
    )  # fmt: skip
    averaged = setting.training.average != "none"
    return TrainState(
        weights=weights,
        optimizer=Optimizer.start(weights, setting.training),
        progress=progress,
        average={n: t.detach().clone() for n, t in weights.named().items()} if averaged else {},
    )


def stepper(state: TrainState, setting: ProxySetting) -> Callable[[Tensor, Tensor], None]:
    """Return `take(batch, rate)`, one training step. batch: (K, B, T + 1) int64. rate: (K,)."""

    def eager(batch: Tensor, rate: Tensor) -> None:
        take_step(state, batch, rate, setting)

    if state.weights.embedding.device.type != "cuda":
        return eager
    return _Captured(eager, lambda: _drop_gradients(state.weights))


class _Captured:
    """A step that becomes a CUDA graph after a few eager ones; eager for good if capturing fails.

    The eager steps and the capture share a side stream, as autograd must not meet the default one there.
    """

    def __init__(self, eager: Callable[[Tensor, Tensor], None], reset: Callable[[], None]) -> None:
        self._eager, self._reset, self._done = eager, reset, 0
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch = self._rate = torch.empty(0)

    def __call__(self, batch: Tensor, rate: Tensor) -> None:
        if self._done == _EAGER_STEPS:
            self._capture(batch, rate)
        self._done += 1
        if self._graph is not None:
            self._batch.copy_(batch)
            self._rate.copy_(rate)
            self._graph.replay()
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._eager(batch, rate)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, batch: Tensor, rate: Tensor) -> None:
        self._batch, self._rate = batch.clone(), rate.clone()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            # thread_local: the loader's thread goes on pinning memory. The outer context restores the stream
            # where a failed capture leaves its own behind
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._eager(self._batch, self._rate)
        except RuntimeError as error:  # an operation that this build cannot capture: only slower without
            if is_out_of_memory(error) or is_out_of_memory(error.__context__):
                raise torch.OutOfMemoryError(str(error)) from error
            torch.cuda.synchronize()
            self._reset()
            text = str(error).splitlines()[0]
            warnings.warn(f"training goes on without a CUDA graph: {text}", RuntimeWarning, stacklevel=2)
            return
        self._graph = graph


def take_step(state: TrainState, batch: Tensor, rate: Tensor, setting: ProxySetting) -> None:
    """Take one step: gradients, watch, update. No value leaves the device, so a GPU never waits."""
    dtype = choose_dtype(setting.training.precision, batch.device)
    loss, norm = gradients(state.weights, batch, setting, dtype)
    progress = state.progress
    dies = progress.alive & ~(loss.isfinite() & norm.isfinite())
    for kept, now in (
        (progress.died_at, state.optimizer.steps), (progress.loss, loss), (progress.norm, norm),
    ):  # fmt: skip
        kept.copy_(torch.where(dies, now, kept))
    progress.alive &= ~dies
    progress.total += loss
    update(
        state.weights, state.optimizer, rate, progress.alive, training=setting.training, dtype=dtype,
        decay_all=setting.model.architecture == "tinyllama",
    )  # fmt: skip
    _drop_gradients(state.weights)


def _drop_gradients(weights: Weights) -> None:
    for tensor in weights.named().values():
        tensor.grad = None


def gradients(
    weights: Weights, batch: Tensor, setting: ProxySetting, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Put clipped gradients into the weights; return loss and gradient norm (K,). batch: (K, B, T + 1)."""
    passes = setting.training.passes(setting.model.context)
    total = torch.zeros(len(batch), device=batch.device)
    for part in batch.chunk(passes, dim=1):
        tokens, domains = parted(part, setting.vocab_size, setting.model)
        told = None if domains is None else domains[:, :, :-1]
        hidden = hidden_states(weights, tokens[:, :, :-1], setting.model, dtype, told)
        loss = head_loss(hidden, weights.table, tokens[:, :, 1:].flatten(1)) / passes
        loss.sum().backward()
        total += loss.detach()
    return total, clip_models(weights, setting.training.clip)


def _note_point(progress: Progress, step: int, steps: int) -> None:
    every = max(1, steps // _CURVE_POINTS)
    if step % every == 0:
        progress.points.append((step, (progress.total / every / math.log(2)).tolist()))
        progress.total.zero_()


@torch.no_grad()
def average(state: TrainState, setting: ProxySetting) -> None:
    """Take the weights of this step into their average, if it is one of the steps that count.

    last: the plain mean over the last `average_share` of the steps. ema: exponential with that time
    constant, the plain mean at first, so that the start is forgotten.
    """
    if not state.average:
        return
    span = max(1, round(setting.training.average_share * setting.steps))
    stride = max(1, span // _AVERAGED)
    begin = setting.steps - span if setting.training.average == "last" else 0
    if state.step <= begin or (setting.steps - state.step) % stride:
        return
    seen = (state.step - begin - 1) // stride + 1
    share = 1.0 / seen if setting.training.average == "last" else max(stride / span, 1.0 / seen)
    for name, tensor in state.weights.named().items():
        state.average[name].lerp_(tensor, min(1.0, share))
