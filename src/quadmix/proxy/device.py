"""Where proxies are trained and in which number format."""

import torch

from quadmix.errors import ProxyError


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device: `auto` is a GPU if there is one. Raises ProxyError if `cuda` is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        build = "built with CUDA, but no GPU is visible" if torch.version.cuda else "a build without CUDA"
        raise ProxyError(
            f"run.device is cuda, but this process sees {torch.cuda.device_count()} GPUs (torch "
            f"{torch.__version__}, {build}); set run.device to cpu or auto, or install a CUDA build of torch"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the compute type: `auto` is bfloat16 where the hardware multiplies it."""
    if precision == "auto":
        capable = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.10: float32
        fast = device.type == "cuda" or capable.get("avx512_bf16") or capable.get("amx_bf16")
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether torch or Python ran out of memory (torch says it on CPU by a plain RuntimeError)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
