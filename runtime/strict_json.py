"""JSON -> values of annotated types: frozen dataclasses, tuples, mappings; strict in every way."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def build(kind: Any, value: Any, where: str) -> Any:
    """Make a value of the annotated type from JSON; unknown, missing or ill-typed is an error."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise TypeError(f"{where} is {type(value).__name__}, expected an object")
        hints = get_type_hints(kind)
        unknown = set(value) - {f.name for f in fields(kind)}
        if unknown:
            raise ValueError(f"{where} has unknown keys {sorted(unknown)}")
        missing = [
            f.name
            for f in fields(kind)
            if f.name not in value and f.default is MISSING and f.default_factory is MISSING
        ]
        if missing:
            raise ValueError(f"{where} lacks the keys {missing}")
        built = {k: build(hints[k], v, f"{where}.{k}") for k, v in value.items()}
        return kind(**built)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        for option in arguments:
            if option is not NoneType:
                try:
                    return build(option, value, where)
                except (TypeError, ValueError):
                    continue
        raise TypeError(f"{where} is {value!r}, expected {kind}")
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}, expected one of {arguments}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{where} is {type(value).__name__}, expected a list")
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise ValueError(f"{where} has {len(value)} items, expected {len(inner)}")
        return tuple(
            build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(inner, value, strict=True))
        )
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise TypeError(f"{where} is {type(value).__name__}, expected an object")
        return MappingProxyType(
            {str(k): build(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
        )
    if kind is float and type(value) in (int, float):
        # JSON of other programs may hold NaN, 1e999 or integers that no float holds.
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"{where} is not a finite number")
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{where} is {value!r}, expected {getattr(kind, '__name__', kind)}")
    return value
