"""What this machine offers the tool: packages, devices, precision, disk, network use."""

import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Any

from quadmix import __version__
from quadmix.engine.tasks import resolve_workers
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.door import is_offline
from quadmix.recipe import CriterionSection, DomainSection, Recipe, remote_paths

_EXTRAS = {
    "torch": "proxy", "tokenizers": "proxy", "safetensors": "proxy", "lightgbm": "search",
    "scikit-learn": "search", "matplotlib": "report", "s3fs": "s3", "gcsfs": "gcs", "adlfs": "az",
    "huggingface_hub": "hf", "transformers": "annotate", "fasttext-numpy2": "annotate", "kenlm": "ngram",
}  # fmt: skip


UNSOUND = "WRONG"  # of a model whose outputs are not those of its card


def examine(recipe: Recipe | None = None) -> dict[str, Any]:
    """Return a flat mapping of what was found; nothing is downloaded, connected to or written.

    recipe: list what of it uses the network, and run its models that are here on 20 fixed texts.
    """
    facts: dict[str, Any] = {
        "quadmix": __version__,
        "python": platform.python_version(),
        "workers (run.workers: 0)": resolve_workers(0),
        "free disk here, GB": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "network": _network(recipe),
    }
    for package, extra in _EXTRAS.items():
        facts[package] = _version(package, extra)
    if importlib.util.find_spec("torch"):
        facts |= _torch_facts()
    if recipe is not None:
        facts |= _model_facts(recipe)
    return facts


def _model_facts(recipe: Recipe) -> dict[str, str]:
    """Say of every model of the recipe that is on this machine whether it gives what its card holds."""
    section = recipe.annotate
    users: dict[str, CriterionSection | DomainSection] = {}
    users |= {f"model of {c.name}": c for c in section.criteria if c.kind == "model"}
    if section.domain.kind in ("model", "clusters") and section.domain.model:
        users["model of annotate.domain"] = section.domain
    return {name: _golden(recipe, user) for name, user in users.items()}


def _golden(recipe: Recipe, user: CriterionSection | DomainSection) -> str:
    from quadmix.annotate.models.golden import check_golden
    from quadmix.annotate.models.load import forget_models
    from quadmix.annotate.models.prepare import asked_of, place_model

    try:
        checked = check_golden(asked_of(recipe.annotate, place_model(user, offline=True)))
    except (InputError, MissingExtraError) as error:
        return f"not checked: {error}"
    finally:
        forget_models()
    state = {True: "as it should be", False: UNSOUND, None: "not comparable"}[checked.passed]
    return f"{checked.model}: {state}; {checked.told}"


def _network(recipe: Recipe | None) -> str:
    if is_offline() or (recipe is not None and recipe.run.offline):
        return "switched off: every remote address is refused"
    if recipe is None:
        return "used for the remote addresses of a recipe alone; list them: quadmix doctor RECIPE"
    return "; ".join(remote_paths(recipe)) or "not used: every path of the recipe is on this machine"


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
