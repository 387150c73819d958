"""What this machine offers the tool: packages, devices, precision, disk, network use."""

import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Any

from quadmix import __version__
from quadmix.engine.tasks import resolve_workers

_EXTRAS = {
    "torch": "proxy", "tokenizers": "proxy", "safetensors": "proxy", "lightgbm": "search",
    "scikit-learn": "search", "matplotlib": "report",
}  # fmt: skip


def examine() -> dict[str, Any]:
    """Return a flat mapping of what was found; nothing is downloaded or written."""
    facts: dict[str, Any] = {
        "quadmix": __version__,
        "python": platform.python_version(),
        "workers (run.workers: 0)": resolve_workers(0),
        "free disk here, GB": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "network": "not used: every built-in annotator is offline",
    }
    for package, extra in _EXTRAS.items():
        facts[package] = _version(package, extra)
    if importlib.util.find_spec("torch"):
        facts |= _torch_facts()
    return facts


def _version(package: str, extra: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing; pip install 'quadmix[{extra}]'"


def _torch_facts() -> dict[str, Any]:
    import torch

    from quadmix.proxy.device import choose_device, choose_dtype

    return {
        "CUDA devices": torch.cuda.device_count(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "precision (auto)": str(choose_dtype("auto", choose_device())).removeprefix("torch."),
    }
