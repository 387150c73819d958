"""The libraries of the formats: imported where they are needed, and named when they are not there."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from quadmix.errors import MissingExtraError


def library(module: str, package: str, extra: str, feature: str) -> Any:
    """Import `module`; MissingExtraError names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(error.name or package, extra, feature) from error


def library_version(package: str) -> str:
    """Return the installed version of a package, "" if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
