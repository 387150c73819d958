"""Travelling values <-> plain JSON: dataclasses, arrays, tuples, mappings; NaN is null.

`from_json(cls, data)` is strict: an unknown or missing field is an error that names its place, so a file
of another version is refused instead of half-read.
"""

import dataclasses
import types as pytypes
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from quadmix.errors import InputError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Return `value` (dataclasses, arrays, tuples, mappings) as plain JSON values, NaN as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        plain = value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all())
        return value.tolist() if plain else to_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in cast(list[Any], value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Rebuild a value of type `cls` from `to_json`'s output; unknown or missing fields are errors.

    JSON null becomes NaN where a float is expected.
    """
    return cast(T, _decode(cls, data, where or getattr(cls, "__name__", str(cls))))


def _decode(hint: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, pytypes.UnionType):
        if data is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where)
    if origin is np.ndarray:
        return np.asarray(data, dtype=get_args(args[1])[0])
    if origin is tuple:
        hints = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        return tuple(_decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, data, strict=True)))
    if origin is dict:
        return {k: _decode(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if origin is Literal:
        if data not in args:
            raise InputError(f"{where} is {data!r}, expected one of {', '.join(map(repr, args))}")
        return data
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(cast(type, hint), data, where)
    if hint is float:
        return float("nan") if data is None else float(data)
    return data


_hints = lru_cache(maxsize=None)(get_type_hints)


def _decode_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(
            f"{where} is {type(data).__name__}, expected an object with the fields of {cls.__name__}"
        )
    record = cast(dict[str, Any], data)
    hints = _hints(cls)
    unknown = set(record) - set(hints)
    if unknown:
        raise InputError(
            f"{where} has unknown field {sorted(unknown)[0]!r}; was it written by another version?"
        )
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := required - set(record):
        raise InputError(f"{where} lacks field {sorted(missing)[0]!r}; was it written by another version?")
    return cls(**{k: _decode(hints[k], v, f"{where}.{k}") for k, v in record.items()})
