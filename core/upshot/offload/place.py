"""What a place for large results does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["Place"]


class Place(Protocol):
    """Keeps files by relative names of the form `owner/file`, each written once as a whole.

    Names are our own: letters, digits, dots and slashes. What goes wrong is raised as it comes;
    FileNotFoundError means that there is no such file.
    """

    def write(self, name: str, data: bytes) -> None:
        """Write a file, so that nobody ever reads a part of it, and it outlives a crash."""
        ...

    def read(self, name: str, size: int) -> bytes:
        """Return what is in a file, or the first `size + 1` bytes of it."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, and what only it needed; fine if there is none."""
        ...

    def remove_owner(self, owner: str) -> None:
        """Remove all files of one owner; fine if there are none."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the name of each file, among others that are not ours."""
        ...
