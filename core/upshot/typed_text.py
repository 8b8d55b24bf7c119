"""Reads typed values from the text of an environment variable or a URL parameter.

One set of rules serves both, so `UPSHOT_TASK_IGNORE_RESULT=off` and `?upshot_create=off` mean
the same. A type is one of `str`, `int`, `float`, `bool`, `tuple[str, ...]`, or one of these
`| None`.
"""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Final, TypeAlias, Union, get_args, get_origin

__all__ = ["Scalar", "describe_type", "parse_text", "split_optional"]

Scalar: TypeAlias = str | int | float | bool | tuple[str, ...] | None
"""What can be read from text."""

_BOOLS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

_DESCRIPTIONS: Final[dict[object, str]] = {
    str: "printable text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false (also 1/0, yes/no, on/off)",
    tuple: "a list of printable texts (written a,b in one text)",
}


def split_optional(annotation: object) -> tuple[object, bool]:
    """Split a type into its class and whether None is allowed too.

    Raises:
        TypeError: the type is not among those this module reads.
    """
    kinds = [annotation]
    if get_origin(annotation) in (UnionType, Union):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    optional = kinds != [annotation]
    kind = tuple if kinds[0] == tuple[str, ...] else kinds[0]
    if len(kinds) != 1 or kind not in _DESCRIPTIONS:
        raise TypeError(f"a setting or URL option cannot have the type {annotation!r}")
    return kind, optional


def describe_type(annotation: object) -> str:
    """Return what a value of the type looks like as text: "a whole number, or none"."""
    kind, optional = split_optional(annotation)
    return _DESCRIPTIONS[kind] + (", or none" if optional else "")


def parse_text(text: str, annotation: object) -> Scalar:
    """Turn text into a value of the type.

    "none", in any case, and "" are None where the type allows None. Numbers must be finite.

    Raises:
        ValueError: the text is not of the type. The message does not repeat it: the text may
            be a secret, and only the caller can tell.
    """
    kind, optional = split_optional(annotation)
    if optional and text.strip().lower() in ("", "none"):
        return None
    if kind is str:
        return text
    value = _convert(text.strip(), kind)
    if value is None:
        raise ValueError(f"expected {describe_type(annotation)}")
    return value


def _convert(text: str, kind: object) -> Scalar:
    """Return the value, or None for text that is not of the kind."""
    if kind is bool:
        return _BOOLS.get(text.lower())
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        number = int(text) if kind is int else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
