"""Text from objects that may refuse to give any, or give too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upshot.failure.classes import full_name

__all__ = ["safe_repr", "safe_str", "shorten"]

_MAX_REPR: Final = 2000


def safe_str(value: object) -> str:
    """Return `str(value)`, or a placeholder if that raises."""
    return _ask(str, value)


def safe_repr(value: object) -> str:
    """Return `repr(value)`, shortened to 2000 characters, or a placeholder if that raises."""
    return shorten(_ask(repr, value), _MAX_REPR)


def shorten(text: str, limit: int) -> str:
    """Return `text`; of one longer than `limit` characters head and tail, a marker between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _ask(convert: Callable[[object], str], value: object) -> str:
    try:
        # A subclass of str is cut back to str, which every serializer takes.
        return str.__str__(convert(value))
    except Exception:  # `__str__` and `__repr__` are anybody's code and raise anything
        return f"<{full_name(type(value))} object that cannot be shown>"
