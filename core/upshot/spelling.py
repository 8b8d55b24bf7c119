"""Which known names a misspelt one may have been meant for."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["near"]


def near(name: str, known: Iterable[str], *, most: int = 3, likeness: float = 0.6) -> list[str]:
    """Return the known names that are nearest to `name`, the nearest first.

    Args:
        name: what was written.
        known: what could have been meant.
        most: how many to return at most.
        likeness: from 0, anything, to 1, the same: `difflib`'s ratio.
    """
    from difflib import get_close_matches  # only where there is an error, so seldom

    return get_close_matches(name, list(known), n=most, cutoff=likeness)
