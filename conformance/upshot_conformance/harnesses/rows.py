"""What looking into the rows of a database server has in common, whichever server it is."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterator
from typing import Any

from upshot import clock
from upshot_conformance.harness import Harness, UnavailableError

__all__ = ["RowsHarness"]


class RowsHarness(Harness):
    """A server object is a row, named `table/its primary key`.

    A subclass says how to ask its service for tables and rows, and what mentions a namespace.
    """

    def raw_objects(self, namespace: str) -> set[str]:
        return {
            f"{table}/{json.dumps(key)}"
            for table in self._tables()
            for key, row in self._rows(table)
            if self._mentions(row, namespace)
        }

    def purge(self, namespace: str) -> None:
        for name in self.raw_objects(namespace):
            self._remove(*_place(name))

    def read_raw(self, name: str) -> bytes:
        return repr(sorted(self._row(name).items())).encode()

    def ttl(self, name: str) -> float | None:
        row = self._row(name)
        columns = [column for column in row if column.startswith("expires")]
        if len(columns) != 1:
            raise UnavailableError(f"no column of {name!r} says when it expires")
        moment = row[columns[0]]
        return None if moment is None else float(moment) - self._now()

    def _now(self) -> float:
        """Return the present moment on the service's clock, if that is not this machine's."""
        return clock.now()

    @abc.abstractmethod
    def _tables(self) -> list[str]:
        """Return the names of all tables, ready to stand in a statement."""

    @abc.abstractmethod
    def _rows(self, table: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield of each row its primary key and all that is in it."""

    @abc.abstractmethod
    def _mentions(self, row: dict[str, Any], namespace: str) -> bool:
        """Tell whether a row belongs to a namespace."""

    @abc.abstractmethod
    def _remove(self, table: str, key: dict[str, Any]) -> None:
        """Delete one row."""

    def _row(self, name: str) -> dict[str, Any]:
        table, key = _place(name)
        nothing: dict[str, Any] = {}
        return next((row for found, row in self._rows(table) if found == key), nothing)


def _place(name: str) -> tuple[str, dict[str, Any]]:
    """Return the table and the primary key of the row that an object is."""
    table, _, key = name.partition("/")
    return table, json.loads(key)
