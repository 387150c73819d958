"""The batches of all streams, step by step; on a GPU they are made ahead by a thread, so that it never waits.

Measured (benchmarks/swarm.py, `loader`): one CPU core reads hundreds of times faster than it trains.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue

import numpy as np
import torch
from torch import Tensor

from quadmix.proxy.gates import joined
from quadmix.proxy.order import TokenStream, document_windows, windows
from quadmix.proxy.setting import ProxySetting

_AHEAD = 8


def load(streams: Sequence[TokenStream], setting: ProxySetting, step: int) -> Tensor:
    """Return the batch (K, B, T + 1) int32 of one step on the CPU; with gates int64, as `gates.joined`."""
    batch, context = setting.training.batch, setting.model.context
    tokens = np.stack([windows(s, step, batch, context) for s in streams])
    if setting.model.gates == "none":
        return torch.from_numpy(tokens.astype(np.int32))
    domains = np.stack([document_windows(s, step, batch, context, s.told) for s in streams])
    return torch.from_numpy(joined(tokens, domains, setting.vocab_size))


@contextmanager
def batches(
    streams: Sequence[TokenStream], setting: ProxySetting, device: torch.device, *, first: int = 0
) -> Generator[Iterator[Tensor]]:
    """Yield an iterator over the batches (K, B, T + 1) int64 on `device` of steps first, first + 1, ..."""
    steps = range(first, setting.steps)
    if device.type != "cuda":
        yield (load(streams, setting, step).long() for step in steps)
        return
    queue: Queue[Tensor | BaseException] = Queue(_AHEAD)
    stop = threading.Event()

    def fill() -> None:
        try:
            for step in steps:
                queue.put(load(streams, setting, step).pin_memory())
                if stop.is_set():
                    return
        except BaseException as error:  # raised where the batch is asked for
            queue.put(error)

    def drain() -> Iterator[Tensor]:
        for _ in steps:
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item.to(device, non_blocking=True).long()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        yield drain()
    finally:
        stop.set()
        while not queue.empty():
            queue.get_nowait()
        thread.join()
