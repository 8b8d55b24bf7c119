"""A cursor that tells how much went through it, so that nothing large stays behind in drivers.

Below a driver's cursor there are buffers that grow and never shrink: libpq's for what the server
sent, SQLite's copies of the values that its cached statements were last run with. Only closing the
connection frees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

__all__ = ["LARGE", "Cursor", "WeighedCursor", "weight"]

LARGE: Final = 2**20
"""Bytes after which a connection is not kept for the next call: what moving them took is more than
what opening another one takes."""


class Cursor(Protocol):
    """What is used of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        ...

    def execute(self, statement: str, values: Mapping[str, object] = ..., /) -> object:
        """Run a statement with named parameters."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...


class WeighedCursor:
    """Passes everything on to a driver's cursor.

    Attributes:
        carried: bytes of bodies that went through it, either way; set to 0 by whoever counts.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self.carried = 0

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    def execute(self, statement: str, *values: Mapping[str, object]) -> object:
        """Run a statement, with named parameters if it has any."""
        for each in values:
            self.carried += weight(each.values())
        return self._cursor.execute(statement, *values)

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows = self._cursor.fetchall()
        for row in rows:
            self.carried += weight(row)
        return rows


def weight(values: Iterable[object]) -> int:
    """Return the length of the byte strings among some values, and in the lists among them."""
    found = 0
    for value in values:
        if isinstance(value, bytes):
            found += len(value)
        elif isinstance(value, list):
            found += weight(cast("list[object]", value))
    return found
