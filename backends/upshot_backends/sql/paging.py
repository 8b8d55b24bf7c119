"""Enumerating keys in pages, each of which begins where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

__all__ = ["PAGE", "keys_in_pages"]

PAGE: Final = 1000
"""Keys per round trip."""


def keys_in_pages(read: Callable[[str], Sequence[str]], prefix: str) -> Iterator[str]:
    """Yield every key that begins with `prefix`, once, in the order of the service.

    Args:
        read: returns up to `PAGE` keys in order, from the given one on.
        prefix: what they begin with.
    """
    last: str | None = None
    while True:
        first = last
        page = read(last or prefix)
        for key in page:
            if not key.startswith(prefix):  # in order: all that do were before it
                return
            if key != last:
                yield key
            last = key
        if len(page) < PAGE or last == first:  # or they are no text, and have no order
            return
