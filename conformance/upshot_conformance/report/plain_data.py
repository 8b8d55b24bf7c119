"""Makes dataclasses again of what `dataclasses.asdict` and JSON made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

__all__ = ["build"]

T = TypeVar("T")


def build(kind: type[T], data: object) -> T:
    """Return the object of the dataclass `kind` that plain data describe.

    Its fields are text, numbers, booleans, string enums, other such dataclasses, and tuples,
    mappings and unions of those.

    Raises:
        ValueError: a field is missing, unknown, or of another type; the message names it.
    """
    return cast("T", _dataclass(kind, data))


def _dataclass(kind: Any, data: object) -> Any:
    hints = _hints(kind)
    given = _mapping(data)
    if wrong := sorted(given.keys() ^ hints.keys()):
        raise ValueError(f"{', '.join(map(repr, wrong))}: missing or unknown")
    built: dict[str, Any] = {}
    for name, hint in hints.items():
        try:
            built[name] = _value(hint, given[name])
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from None
    return kind(**built)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(kind: Any, data: object) -> Any:
    origin = get_origin(kind)
    if origin is UnionType:
        return _one_of(get_args(kind), data)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{data!r} is no list")
        return tuple(_value(get_args(kind)[0], each) for each in cast("list[object]", data))
    if origin is Mapping:
        return {name: _value(get_args(kind)[1], each) for name, each in _mapping(data).items()}
    if is_dataclass(kind):
        return _dataclass(kind, data)
    return _scalar(kind, data)


def _scalar(kind: Any, data: object) -> Any:
    if issubclass(kind, StrEnum) and isinstance(data, str):
        return kind(data)
    if type(data) is kind or (kind is float and type(data) is int):
        return data
    raise ValueError(f"{data!r} is no {kind.__name__}")


def _one_of(kinds: tuple[Any, ...], data: object) -> Any:
    if data is None and NoneType in kinds:
        return None
    wrong: list[str] = []
    for kind in kinds:
        if kind is not NoneType:
            try:
                return _value(kind, data)
            except ValueError as exc:
                wrong.append(str(exc))
    raise ValueError("; ".join(wrong))


def _mapping(data: object) -> Mapping[str, object]:
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} is no object")
    return cast("dict[str, object]", data)
