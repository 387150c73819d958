"""Files of tensors, read without running anything they contain.

In: a .safetensors file, or a checkpoint of torch (.ckpt, .pt, .pth, .bin; Lightning's layout too). Out: names
and tensors on the CPU.
"""

from pathlib import Path
from typing import Any

from quadmix.annotate.models.devices import import_torch
from quadmix.errors import InputError, MissingExtraError


def read_tensors(path: Path) -> dict[str, Any]:
    """Return name -> tensor; InputError if the file is absent, damaged or would have to run code."""
    torch = import_torch("a file of weights")
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected the file of weights that the card names")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names half a dozen kinds; whatever it is, the file cannot be used
        raise InputError(
            f"{path} cannot be read as weights only ({_first_line(error)}); quadmix never runs code of a "
            "checkpoint: save its tensors as .safetensors and name that file on the card"
        ) from error
    inner = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    tensors = {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no named tensors; expected a state dict, or Lightning's state_dict")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Return what the header of a .safetensors file says beside its tensors; nothing for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "a file of weights") from error
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "a file of weights") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({_first_line(error)}); fetch it again") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
