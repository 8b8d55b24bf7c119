"""The rows of `results`: what is the same on every service, and what each says in its own words."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

from upshot.backend import StoredRecord
from upshot_backends.sql.connection import Cursor, Database
from upshot_backends.sql.statements import ResultStatements

__all__ = ["Records", "batches", "readable", "text"]

_ROWS: Final = 1000  # records in one statement


class Records(abc.ABC):
    """Reads and writes records in the caller's transaction; usable from any thread.

    `now` is the present moment, from `Database.now`.
    """

    def __init__(self, database: Database) -> None:
        self._statements = ResultStatements(database.schema, database.dialect)

    @abc.abstractmethod
    def is_one_statement(self, records: Sequence[StoredRecord]) -> bool:
        """Tell whether `store` runs a single statement, which needs no transaction around it."""

    @abc.abstractmethod
    def store(
        self, cursor: Cursor, records: Sequence[StoredRecord], now: float, *, tell: bool = True
    ) -> list[bool]:
        """Store records under the guard, in order; tell which ones applied, unless nobody asks."""

    def load(self, cursor: Cursor, keys: Sequence[str], now: float) -> list[bytes | None]:
        """Return for each key the body under it, or None."""
        if len(keys) == 1:
            cursor.execute(self._statements.load_one, {"key": keys[0], "now": now})
            return [body for (body,) in cursor.fetchall()] or [None]
        bodies = self._load(cursor, keys, now)
        return [bodies.get(key) for key in keys]

    @abc.abstractmethod
    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        """Remove rows, in one statement."""

    def scan(self, cursor: Cursor, first: str, now: float, limit: int) -> list[str]:
        """Return up to `limit` keys from `first` on, in the order of their bytes."""
        cursor.execute(self._statements.scan, {"first": first, "now": now, "limit": limit})
        return [text(key) for (key,) in cursor.fetchall()]

    @abc.abstractmethod
    def sweep(self, cursor: Cursor, now: float, limit: int) -> int:
        """Remove up to `limit` rows that have expired; return how many there were."""

    @abc.abstractmethod
    def _load(self, cursor: Cursor, keys: Sequence[str], now: float) -> dict[str, bytes]:
        """Return the bodies that are there, for any number of keys in a bounded number of steps."""


def batches(records: Sequence[StoredRecord], most: int) -> list[list[int]]:
    """Cut records into batches of which each can be stored by one statement.

    A statement compares with one rank and touches each row once. So a batch holds the places of
    records of one rank and of different keys, which together have `most` bytes, or one record
    that alone has more. Records of one key stay in order: the batches are to be stored in order,
    and each is sorted by key, so that writers who meet lock rows in one order.
    """
    found: list[list[int]] = []
    sizes: list[int] = []
    ranks: list[int] = []
    after: dict[str, int] = {}  # the first batch that a key may go into
    for place, record in enumerate(records):
        chosen = after.get(record.key, 0)
        while chosen < len(found) and (
            ranks[chosen] != record.rank
            or len(found[chosen]) >= _ROWS
            or sizes[chosen] + len(record.body) > most
        ):
            chosen += 1
        if chosen == len(found):
            found.append([])
            sizes.append(0)
            ranks.append(record.rank)
        found[chosen].append(place)
        sizes[chosen] += len(record.body)
        after[record.key] = chosen + 1
    for batch in found:
        batch.sort(key=lambda place: records[place].key)
    return found


def readable(words: str) -> str:
    """Return text that every service takes in a column for people.

    PostgreSQL takes no NUL, and none takes what is no Unicode text.
    """
    if words.isascii() and "\0" not in words:
        return words
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def text(value: str | bytes) -> str:
    """Return the text in an exact column, which MySQL and MariaDB give as bytes.

    What somebody else put there may be no text: then what it is shown as is the name of nothing.
    """
    return value.decode(errors="replace") if isinstance(value, bytes) else value
