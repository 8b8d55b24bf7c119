"""The statements that the backend runs, in the words of each database.

Everything compares with the database's clock, so that two machines agree on what has expired;
SQLite's is this machine's. Numbers are written into a statement, text and bytes are its parameters.
"""

from __future__ import annotations

import abc
import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot_backends.sql.records import batches, readable, text

__all__ = [
    "Cursor",
    "MysqlStatements",
    "PostgresqlStatements",
    "SqliteStatements",
    "Statements",
    "statements",
]

T = TypeVar("T")

_COLUMNS: Final = ("key", "task_id", "name", "state", "barrier", "stored_at", "expires_at", "body")
_FEW: Final = 180  # rows of five parameters: SQLite takes 999 of them, as Django counts
_KEYS: Final = 900  # keys in one statement, for the same reason


class Cursor(Protocol):
    """What is used of Django's cursors."""

    def execute(self, sql: str, params: Sequence[object] = ..., /) -> object:
        """Run a statement."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        ...


class Statements(abc.ABC):
    """Reads and writes the table; usable from any thread.

    Args:
        table: its name.
        quote: puts a name into the database's quotes.
    """

    begin: str = "BEGIN"
    """Begins a transaction that writes."""

    def __init__(self, table: str, quote: Callable[[str], str]) -> None:
        self._quote = quote
        self._table = quote(table)
        self._key, self._expires, self._barrier, self._body = map(
            quote, ("key", "expires_at", "barrier", "body")
        )
        self._columns = ", ".join(map(quote, _COLUMNS))

    @abc.abstractmethod
    def now(self) -> str:
        """Return what stands for the present moment, in seconds since the epoch."""

    def is_one(self, records: Sequence[StoredRecord]) -> bool:
        """Tell whether `store` runs a single statement, which needs no transaction around it."""
        return len(records) == 1 or len(self._parts(records)) == 1

    def store(self, cursor: Cursor, records: Sequence[StoredRecord]) -> list[bool]:
        """Store records under the guard, in order; tell which ones applied."""
        answers = [False] * len(records)
        for places in self._parts(records):
            applied = self._store(cursor, [records[place] for place in places])
            for place in places:
                answers[place] = records[place].key in applied
        return answers

    def load(self, cursor: Cursor, keys: Sequence[str]) -> list[bytes | None]:
        """Return for each key the body under it, or None."""
        bodies: dict[str, bytes] = {}
        for some in _cut(list(dict.fromkeys(keys)), _KEYS):
            cursor.execute(
                f"SELECT {self._key}, {self._body} FROM {self._table} "  # noqa: S608
                f"WHERE {self._key} IN ({_marks(some)}) AND {self._alive()}",
                some,
            )
            bodies.update((text(key), bytes(body)) for key, body in cursor.fetchall())
        return [bodies.get(key) for key in keys]

    def delete(self, cursor: Cursor, keys: Sequence[str]) -> None:
        """Remove rows, in an order that is the same for all who lock rows."""
        for some in _cut(sorted(set(keys)), _KEYS):
            cursor.execute(
                f"DELETE FROM {self._table} WHERE {self._key} IN ({_marks(some)})",  # noqa: S608
                some,
            )

    def scan(self, cursor: Cursor, first: str, limit: int) -> list[str]:
        """Return up to `limit` keys from `first` on, in the order of their bytes."""
        cursor.execute(
            f"SELECT {self._key} FROM {self._table} WHERE {self._key} >= %s "  # noqa: S608
            f"AND {self._alive()} ORDER BY {self._key} LIMIT {limit:d}",
            [first],
        )
        return [text(key) for (key,) in cursor.fetchall()]

    def sweep(self, cursor: Cursor, limit: int) -> int:
        """Remove up to `limit` rows that have expired; return how many there were."""
        cursor.execute(
            f"DELETE FROM {self._table} WHERE {self._key} IN ("  # noqa: S608
            f"SELECT {self._key} FROM {self._table} WHERE {self._expires} <= {self.now()} "
            f"LIMIT {limit:d}{self._skipping})"
        )
        return cursor.rowcount

    _part = 16 * 2**20  # bytes of bodies in one statement
    _skipping = ""  # what lets a sweep leave alone the rows that somebody writes just now
    _body_mark = "%s"  # where a body is put

    def _store(self, cursor: Cursor, records: Sequence[StoredRecord]) -> set[str]:
        """Store records of one rank and of different keys; return the keys that applied."""
        now, stored = self.now(), self._table
        taken = ", ".join(f"{name} = excluded.{name}" for name in self._replaced())
        cursor.execute(
            f"{self._insert(records, now)} ON CONFLICT ({self._key}) DO UPDATE SET {taken} "
            f"WHERE {stored}.{self._barrier} <= {records[0].rank:d} "
            f"OR {stored}.{self._expires} <= {now} RETURNING {self._key}",
            self._values(records),
        )
        return {text(key) for (key,) in cursor.fetchall()}

    def _insert(self, records: Sequence[StoredRecord], now: str) -> str:
        rows = ", ".join(self._row(record, now) for record in records)
        return f"INSERT INTO {self._table} ({self._columns}) VALUES {rows}"  # noqa: S608

    def _row(self, record: StoredRecord, now: str) -> str:
        """Return the places of one row; the parameters are those of `_values`."""
        end = "NULL" if record.expires is None else f"{now} + {float(record.expires)!r}"
        return f"(%s, %s, %s, %s, {record.barrier:d}, {now}, {end}, {self._body_mark})"

    def _values(self, records: Sequence[StoredRecord]) -> list[object]:
        return [
            value
            for record in records
            for value in (
                record.key,
                record.task_id,
                readable(record.name),
                readable(record.state),
                self._sent(record.body),
            )
        ]

    def _sent(self, body: bytes) -> object:
        """Return the parameter that a body is."""
        return body

    def _replaced(self) -> Iterator[str]:
        return (self._quote(name) for name in _COLUMNS if name != "key")

    def _alive(self) -> str:
        return f"({self._expires} IS NULL OR {self._expires} > {self.now()})"

    def _parts(self, records: Sequence[StoredRecord]) -> list[list[int]]:
        return [
            places[first : first + _FEW]
            for places in batches(records, self._part)
            for first in range(0, len(places), _FEW)
        ]


@final
class SqliteStatements(Statements):
    """Each write begins as such: SQLite refuses at once who reads first and then writes."""

    begin = "BEGIN IMMEDIATE"

    def now(self) -> str:
        return repr(clock.now())


@final
class PostgresqlStatements(Statements):
    """The moment at which a statement came, which an index can be searched for."""

    _skipping = " FOR UPDATE SKIP LOCKED"

    def now(self) -> str:
        return "extract(epoch FROM statement_timestamp())::float8"


@final
class MysqlStatements(Statements):
    """MySQL's upsert has no WHERE, and tells of no row. So rows are locked, looked at, replaced.

    What is not there cannot be locked. So something is put there first that has expired already:
    it is replaced in the same transaction, and nobody ever sees it.

    A body travels in Base64: escaped, each of its bytes could become two.
    """

    begin = "START TRANSACTION"
    _part = 256 * 2**10  # a quarter of the smallest packet
    _body_mark = "FROM_BASE64(%s)"

    def now(self) -> str:
        return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6"

    def is_one(self, records: Sequence[StoredRecord]) -> bool:
        return False

    def sweep(self, cursor: Cursor, limit: int) -> int:
        cursor.execute(
            f"DELETE FROM {self._table} WHERE {self._expires} <= {self.now()} "  # noqa: S608
            f"LIMIT {limit:d}"
        )
        return cursor.rowcount

    def _sent(self, body: bytes) -> object:
        return base64.b64encode(body).decode()

    def _store(self, cursor: Cursor, records: Sequence[StoredRecord]) -> set[str]:
        now = self.now()
        keys = [record.key for record in records]
        places = ", ".join(["(%s, '', '', '', 0, 0, 0, '')"] * len(keys))
        cursor.execute(
            f"INSERT INTO {self._table} ({self._columns}) VALUES {places} "  # noqa: S608
            f"ON DUPLICATE KEY UPDATE {self._key} = {self._key}",
            keys,
        )
        cursor.execute(
            f"SELECT {self._key} FROM {self._table} WHERE {self._key} IN ({_marks(keys)}) "  # noqa: S608
            f"AND ({self._barrier} <= {records[0].rank:d} OR {self._expires} <= {now}) FOR UPDATE",
            keys,
        )
        applied = {text(key) for (key,) in cursor.fetchall()}
        chosen = [record for record in records if record.key in applied]
        if chosen:
            taken = ", ".join(f"{name} = VALUES({name})" for name in self._replaced())
            insert = self._insert(chosen, now)
            cursor.execute(f"{insert} ON DUPLICATE KEY UPDATE {taken}", self._values(chosen))
        return applied


def statements(vendor: str, table: str, quote: Callable[[str], str]) -> Statements | None:
    """Return the statements for what Django calls a vendor; None for one that is not supported."""
    kinds: dict[str, type[Statements]] = {
        "sqlite": SqliteStatements,
        "postgresql": PostgresqlStatements,
        "mysql": MysqlStatements,
    }
    kind = kinds.get(vendor)
    return None if kind is None else kind(table, quote)


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def _cut(values: list[T], most: int) -> Iterator[list[T]]:
    return (values[first : first + most] for first in range(0, len(values), most))
