"""The libraries that read the exports: real ones, from tests/readers.txt, beside the tests' environment.

They cannot all be installed with the versions that QuaDMix is tested with (one wants numpy < 2.2, one an old
filelock), so `make` puts them, without their dependencies, into the folder `readers` of the environment.
What of them reads text and tokens works with our versions; two packages that mosaicml-streaming imports for
images and for tokenising samples are replaced by empty modules, since nothing here comes near them.
"""

import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

READERS = Path(sys.prefix) / "readers"
_UNUSED: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.datasets": {"VisionDataset": type("VisionDataset", (), {})},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {"to_tensor": None},
    "transformers": {},
    "transformers.feature_extraction_utils": {"BatchFeature": type("BatchFeature", (), {})},
    "transformers.models": {},
    "transformers.models.auto": {},
    "transformers.models.auto.tokenization_auto": {"AutoTokenizer": None},
    "transformers.tokenization_utils_base": {"BatchEncoding": type("BatchEncoding", (), {})},
}


@pytest.fixture(scope="module", autouse=True)
def readers() -> Iterator[None]:
    """Let the libraries be found by the tests of one module."""
    if not READERS.is_dir():
        pytest.fail(f"{READERS} is missing; run `make test`, which installs tests/readers.txt there")
    sys.path.append(str(READERS))
    yield
    sys.path.remove(str(READERS))


def consumer(name: str) -> Any:
    """Import a module of one of the libraries; what it warns of while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("streaming") and "streaming" not in sys.modules:
            return _without_unused(name)
        return importlib.import_module(name)


def _without_unused(name: str) -> Any:
    made = {key: _module(key, values) for key, values in _UNUSED.items() if key not in sys.modules}
    sys.modules.update(made)
    try:
        return importlib.import_module(name)
    finally:
        for key in made:
            del sys.modules[key]


def _module(name: str, values: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []
    module.__dict__.update(values)
    return module
