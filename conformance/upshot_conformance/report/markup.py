"""Makes HTML from text: whatever is not made here is escaped."""

from __future__ import annotations

import html
import re
from typing import Final

__all__ = ["Content", "Markup", "anchor", "join", "tag"]

_VOID: Final = frozenset({"meta", "br", "link", "col"})
_UNFIT: Final = re.compile(r"[^\w.+-]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | None
"""What an element may hold: markup, text that is escaped, or nothing."""


def tag(name: str, *content: Content, **attributes: str | bool | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: what it holds, one after the other.
        attributes: a trailing `_` is dropped, other `_` become `-`; None and False leave an
            attribute out, True writes it without a value.
    """
    shown = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """Return the parts as one, each escaped unless it is markup."""
    return Markup(
        "".join(each if isinstance(each, Markup) else html.escape(each) for each in content if each)
    )


def anchor(*parts: str) -> str:
    """Return the id of a place in the page: `anchor("redis", "ST-2")` is `redis-ST-2`."""
    return "-".join(_UNFIT.sub("-", part) for part in parts)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
