"""Values as JSON has them.

Django takes what `json` can write: a `SafeString`, as `render_to_string` returns it, or a member of
`TextChoices`. upshot's serializers bring types home, and refuse what would lose its own; Django
promises no more than JSON, so here such a value becomes what JSON makes of it.
"""

from __future__ import annotations

from typing import Any, cast

from django.utils.json import normalize_json

__all__ = ["plain"]


def plain(value: object) -> Any:
    """Return a copy of a value in plain lists, dicts, text and numbers.

    Raises:
        TypeError: some part of it is no JSON value.
        ValueError: some part of it is bytes that are no UTF-8.
    """
    return _plain(normalize_json(value))


def _plain(value: object) -> Any:
    kind = type(value)
    if kind is dict:
        pairs = cast("dict[object, object]", value).items()
        return {_plain(key): _plain(item) for key, item in pairs}
    if kind is list:
        return [_plain(item) for item in cast("list[object]", value)]
    # By the methods of the base, as `json` does: a subclass may say something else of itself.
    if isinstance(value, str):
        return value if kind is str else str.__str__(value)
    if isinstance(value, float):
        return value if kind is float else float.__float__(value)
    if isinstance(value, int) and kind is not bool:
        return value if kind is int else int.__int__(value)
    return value
