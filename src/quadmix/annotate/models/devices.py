"""Where a model runs and in which number format.

In: `Settings`. Out: a device, a number format; a model put there whose last layer stays in float32.

`auto` is bfloat16 on a GPU that multiplies it and float32 everywhere else. A CPU is given bfloat16 only where
the settings say so: with AVX512-bf16 it nearly doubles the speed, but scores change in the third digit
(benchmarks/annotate_encoder.py: Spearman 0.993 to 0.998 with float32 on a random model of four layers), and
they would differ from one worker's CPU to another's.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quadmix.annotate.models.base import Settings
from quadmix.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

NEURAL = frozenset(("sequence", "hub-head", "frozen-head", "yes-no", "embedding"))  # families torch runs
OUT_OF_MEMORY = ("out of memory", "not enough memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def import_torch(feature: str) -> Any:
    """Return the module torch; MissingExtraError says what needs it."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "annotate", feature) from error
    return torch


def import_transformers(feature: str) -> Any:
    """Return the module transformers (torch is checked too); MissingExtraError says what needs it."""
    import_torch(feature)
    # A pool of threads per process beside the workers' own would oversubscribe the machine, and it warns
    # when a process forks; a user's own setting stays.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "annotate", feature) from error
    return transformers


def choose_device(settings: Settings) -> "torch.device":
    """Return the device; InputError if cuda is asked for and this process sees no GPU."""
    torch = import_torch("a model of texts")
    if settings.device == "cuda" and not torch.cuda.is_available():
        build = "built with CUDA, but no GPU is visible" if torch.version.cuda else "a build without CUDA"
        raise InputError(
            f"device is cuda, but this process sees {torch.cuda.device_count()} GPUs (torch "
            f"{torch.__version__}, {build}); set device to cpu or auto, or install a CUDA build of torch"
        )
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(settings: Settings, device: "torch.device") -> "torch.dtype":
    """Return the number format of the weights, see the module's docstring."""
    torch = import_torch("a model of texts")
    if settings.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def resolved(settings: Settings) -> tuple[str, str]:
    """Return the device and the number format that `auto` means here, such as (cpu, float32); InputError if
    cuda is asked for and this process sees no GPU."""
    device = choose_device(settings)
    return device.type, str(choose_dtype(settings, device)).removeprefix("torch.")


def settle(model: Any, settings: Settings, *, last: Any = None) -> Any:
    """Put a model on its device in its number format, in evaluation mode, and return it.

    last: the layer that makes the outputs; it stays in float32, because bfloat16 knows only 64 numbers
    between 2 and 4 and documents would tie.
    """
    device = choose_device(settings)
    model = model.to(device=device, dtype=choose_dtype(settings, device)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if last is not None:
        last.float()
        last.register_forward_pre_hook(lambda _module, inputs: tuple(x.float() for x in inputs))
    return model


@contextmanager
def torch_threads(threads: int) -> Generator[None]:
    """Let torch compute with this many threads inside the block, and with as many as before after it."""
    torch = import_torch("a model of texts")
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: of a GPU, or of the machine (a plain RuntimeError of torch)."""
    torch = import_torch("a model of texts")
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)
