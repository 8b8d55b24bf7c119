"""The tables, in one place for every SQL service.

A prefix, "upshot_" if the URL does not say otherwise, stands before each name:

    schema        one row: the version of this layout, so that an older upshot can refuse a newer
    results       one row per task id and namespace: the record, its barrier, its expiry
    messages      one row per message: where it is queued, when it is due, who has leased it
    dead_letters  messages that were buried, with the reason
    workers       which worker serves which queue, and until when that is believed

All moments are seconds since the epoch on the clock of the server, or of the machine where SQLite
is; but until a message is delivered first, its `due_at` is the eta that its sender's clock gave.
What is compared is compared byte by byte, whatever the database's collation is: on PostgreSQL by
COLLATE "C", on MySQL and MariaDB in VARBINARY columns, because their text columns ignore spaces at
the end.
"""

from __future__ import annotations

from typing import Any, Final, final

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    Column,
    ColumnElement,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    exists,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

__all__ = ["READY", "VERSION", "Schema", "as_run"]

VERSION: Final = 1
"""The version of this layout. Raise it with every change, and migrate from the one before."""

READY: Final = 0.0
"""In `messages.due_at`: it may be delivered now."""

_MYSQL: Final = ("mysql", "mariadb")  # SQLAlchemy's names of the one dialect

# MySQL allows 3072 bytes for all columns of an index together. A namespace has at most 64
# characters, a task id 255 bytes, a key those two and 64 characters percent-encoded.
_NAMESPACE: Final = (
    Text()
    .with_variant(postgresql.TEXT(collation="C"), "postgresql")
    .with_variant(mysql.VARBINARY(256), *_MYSQL)
)
_EXACT: Final = (
    Text()
    .with_variant(postgresql.TEXT(collation="C"), "postgresql")
    .with_variant(mysql.VARBINARY(1024), *_MYSQL)
)
_WORDS: Final = Text().with_variant(mysql.LONGTEXT(), *_MYSQL)  # for people: any length
_BODY: Final = LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)
_SEQUENCE: Final = BigInteger().with_variant(Integer, "sqlite")  # which numbers only INTEGER
_ONE: Final[ColumnElement[int]] = literal_column("1")
_STAMP: Final = mysql.BINARY(8)


@final
class Schema:
    """The tables with one prefix.

    Args:
        prefix: what every table's and index's name begins with.
        schema: the PostgreSQL schema they are in; None for the connection's own.
        stamped: whether `results` has a column `stamp`: 8 random bytes per call that wrote the
            row, for a service that does not tell otherwise whether it wrote it.
    """

    def __init__(self, prefix: str, schema: str | None = None, *, stamped: bool = False) -> None:
        self.prefix = prefix
        self._metadata = MetaData(schema=schema)
        self.schema = self._table(
            "schema",
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
        )
        self.results = self._table(
            "results",
            Column("key", _EXACT, primary_key=True),
            Column("task_id", _WORDS, nullable=False),
            Column("name", _WORDS, nullable=False),
            Column("state", _WORDS, nullable=False),
            Column("barrier", BigInteger, nullable=False),
            Column("stored_at", Double, nullable=False),
            Column("expires_at", Double),  # NULL: never
            Column("body", _BODY, nullable=False),
            *([Column("stamp", _STAMP, nullable=False)] if stamped else ()),
        )
        # `due_at` is READY, or the moment that makes it so: the eta, or the end of the lease. So
        # one index finds, per queue, what is ready in the order of delivery, and what becomes
        # ready next, and never walks over what is delayed or leased. `token` outlives the lease:
        # until the message is delivered anew, whoever held it last may still settle it.
        self.messages = self._table(
            "messages",
            Column("seq", _SEQUENCE, Identity(), primary_key=True),
            Column("namespace", _NAMESPACE, nullable=False),
            Column("queue", _EXACT, nullable=False),
            Column("message_id", _EXACT, nullable=False),
            Column("priority", Integer, nullable=False),
            Column("due_at", Double, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("token", _EXACT),  # NULL: not leased since it was published or released
            Column("worker", _EXACT),
            Column("body", _BODY, nullable=False),
            UniqueConstraint("namespace", "message_id"),
        )
        self.dead_letters = self._table(
            "dead_letters",
            Column("seq", _SEQUENCE, Identity(), primary_key=True),
            Column("namespace", _NAMESPACE, nullable=False),
            Column("queue", _EXACT, nullable=False),
            Column("message_id", _EXACT, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("reason", _WORDS, nullable=False),
            Column("buried_at", Double, nullable=False),
            Column("body", _BODY, nullable=False),
        )
        self.workers = self._table(
            "workers",
            Column("namespace", _NAMESPACE, primary_key=True),
            Column("queue", _EXACT, primary_key=True),
            Column("worker", _EXACT, primary_key=True),
            Column("seen_until", Double, nullable=False),
        )
        messages, dead = self.messages.c, self.dead_letters.c
        self._indexes = (
            Index(f"{prefix}results_expiry", self.results.c.expires_at),
            Index(
                f"{prefix}messages_due",
                messages.namespace,
                messages.queue,
                messages.due_at,
                messages.priority.desc(),
                messages.seq,
            ),
            Index(f"{prefix}dead_letters_queue", dead.namespace, dead.queue),
        )

    def _table(self, name: str, *parts: Column[Any] | UniqueConstraint) -> Table:
        return Table(
            self.prefix + name,
            self._metadata,
            *parts,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_row_format="DYNAMIC",  # with others, a key has no more than 767 bytes
            mariadb_engine="InnoDB",
        )

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of their creation."""
        return self._metadata.sorted_tables

    def creation(self, dialect: Dialect) -> list[str]:
        """Return the statements that create everything, in order, for `dialect`.

        They have no parameters and no semicolon at their end. The last one puts the version, so
        that where the version is, all is. Where the dialect can say so, they are harmless if what
        they create is there: MySQL cannot for indexes, which begin with "CREATE INDEX" there.
        """
        can_ask = dialect.name not in _MYSQL
        parts: list[ClauseElement] = [
            *(CreateTable(table, if_not_exists=True) for table in self.tables),
            *(CreateIndex(index, if_not_exists=can_ask) for index in self._indexes),
            self._put_version(),
        ]
        return [as_run(str(part.compile(dialect=dialect)), dialect).strip() for part in parts]

    def _put_version(self) -> ClauseElement:
        table = self.schema
        version: ColumnElement[int] = literal_column(str(VERSION))
        row = select(_ONE, version).where(~exists(select(table.c.id)))
        return insert(table).from_select(["id", "version"], row)


def as_run(text: str, dialect: Dialect) -> str:
    """Return what SQLAlchemy wrote, for running it without parameters.

    For a driver whose parameters begin with a percent sign, it doubles those in names.
    """
    return text.replace("%%", "%") if dialect.paramstyle == "pyformat" else text
