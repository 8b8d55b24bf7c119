"""Decoded data → the dataclasses that a reader's annotation names."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Final

from upshot.errors import DecodeError

__all__ = ["shape"]

_SEQUENCES: Final = (
    list,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.MutableSequence,
    collections.abc.Sequence,
)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def shape(value: Any, annotation: Any, *, root: str = "value") -> Any:
    """Return `value` with the dataclass instances that `annotation` asks for.

    Understood are dataclasses, also nested in each other, in unions with None or other types,
    in `list`, `tuple`, `dict` values and the abstract classes for these, and as what a `Generator`
    returns. The annotation alone chooses the classes; the class name in the data is not consulted.
    Whatever the annotation says about other types is not checked: the parts it applies to come back
    as they are, and so does the whole value if the annotation names no dataclass or cannot be
    resolved.

    Instances are made without `__init__` and `__post_init__`: those ran when the task made the
    value, might change it when run again, and cannot be called for fields with `init=False`.
    Declared fields are set directly, frozen or not; a missing field takes its default. A union
    of several dataclasses takes the first whose fields fit.

    Args:
        value: what a serializer's `loads` returned; it is not changed.
        annotation: a type, such as a task's return annotation; a string is not resolved.
        root: the first word of the path in an error.

    Raises:
        DecodeError: the data does not fit: another type, an unknown field, a missing field
            without default. The message has the path.
    """
    return _shaper(annotation)(value, root) if _names_dataclass(annotation) else value


_Shaper = Callable[[Any, str], Any]


def _bare(annotation: Any) -> Any:
    """Return what an `Annotated`, `NewType` or `type` alias stands for."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # in `typing` from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation


def _dataclass_of(annotation: Any) -> type[Any] | None:
    """Return the dataclass that an annotation is, also as a generic alias, or None."""
    kind = typing.get_origin(annotation) or annotation
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def _names_dataclass(annotation: Any) -> bool:
    annotation = _bare(annotation)
    return _dataclass_of(annotation) is not None or any(
        map(_names_dataclass, typing.get_args(annotation))
    )


def _shaper(annotation: Any) -> _Shaper:
    """Return the function that shapes values for an annotation."""
    annotation = _bare(annotation)
    kind, arguments = _dataclass_of(annotation), typing.get_args(annotation)
    if kind is not None:
        return lambda value, path: _shape_dataclass(value, kind, path)
    if not _names_dataclass(annotation):
        return lambda value, _: value
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return lambda value, path: _shape_union(value, arguments, path)
    if origin in _SEQUENCES:
        return lambda value, path: _shape_sequence(value, arguments[0], path)
    if origin is tuple:
        return lambda value, path: _shape_tuple(value, arguments, path)
    if origin in _MAPPINGS:
        return lambda value, path: _shape_mapping(value, arguments[-1], path)
    if origin is collections.abc.Generator:
        return _shaper(arguments[-1])
    return lambda value, _: value  # a set cannot hold what decodes to a dict


def _shape_dataclass(value: Any, kind: type[Any], path: str) -> Any:
    if isinstance(value, kind):  # pickle brings instances home
        return value
    _check_type(value, (dict,), f"the fields of {kind.__name__}", path)
    left: dict[Any, Any] = dict(value)
    annotations = _field_annotations(kind)
    try:
        instance = object.__new__(kind)
    except TypeError as exc:  # it is abstract, or derives from a builtin
        raise DecodeError(f"{path} cannot be made a {kind.__name__}: {exc}") from exc
    for field in dataclasses.fields(kind):
        step = f"{path}.{field.name}"
        if field.name in left:
            part = shape(left.pop(field.name), annotations.get(field.name), root=step)
        elif field.default is not dataclasses.MISSING:
            part = field.default
        elif field.default_factory is not dataclasses.MISSING:
            part = field.default_factory()
        elif field.init:
            raise DecodeError(f"{step} is missing, and {kind.__name__} has no default for it")
        else:
            continue
        object.__setattr__(instance, field.name, part)
    if left:
        raise DecodeError(f"{path} has {next(iter(left))!r}, which is no field of {kind.__name__}")
    return instance


def _field_annotations(kind: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # evaluating annotations runs any expression; then nothing is known
        return {}


def _shape_union(value: Any, arguments: tuple[Any, ...], path: str) -> Any:
    error = DecodeError(f"{path} is {type(value).__name__}, which its annotation does not name")
    if value is None and type(None) in arguments:
        return None
    for argument in filter(_names_dataclass, arguments):
        try:
            return _shaper(argument)(value, path)
        except DecodeError as exc:
            error = exc
    if all(_names_dataclass(argument) or argument is type(None) for argument in arguments):
        raise error
    return value  # it belongs to one of the types that are not checked


def _shape_sequence(value: Any, item: Any, path: str) -> Any:
    _check_type(value, (list, tuple), "a list", path)
    shaper = _shaper(item)
    return type(value)(shaper(part, f"{path}[{index}]") for index, part in enumerate(value))


def _shape_tuple(value: Any, items: tuple[Any, ...], path: str) -> Any:
    _check_type(value, (tuple,), "a tuple", path)
    parts: tuple[Any, ...] = value
    if items[-1] is Ellipsis:
        return _shape_sequence(parts, items[0], path)
    if len(parts) != len(items):
        raise DecodeError(f"{path} has {len(parts)} parts, not {len(items)}")
    return tuple(
        _shaper(item)(part, f"{path}[{index}]")
        for index, (part, item) in enumerate(zip(parts, items, strict=True))
    )


def _shape_mapping(value: Any, item: Any, path: str) -> Any:
    _check_type(value, (dict,), "a dict", path)
    shaper = _shaper(item)
    parts: dict[Any, Any] = value
    return {key: shaper(part, f"{path}[{key!r}]") for key, part in parts.items()}


def _check_type(value: object, kinds: tuple[type[Any], ...], wanted: str, path: str) -> None:
    if type(value) not in kinds:
        raise DecodeError(f"{path} is {type(value).__name__}, not {wanted}")
