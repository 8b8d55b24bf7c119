"""The tables, in one place for every SQL service.

A prefix, "upshot_" if the URL does not say otherwise, stands before each name:

    schema        one row: the version of this layout, so that an older upshot can refuse a newer
    results       one row per task id and namespace: the record, its barrier, its expiry
    messages      one row per message: where it is queued, when it is due, who has leased it
    dead_letters  messages that were buried, with the reason
    workers       which worker serves which queue, and until when that is believed

All moments are seconds since the epoch on the clock of whoever wrote the row.
"""

from __future__ import annotations

from typing import Final, final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

__all__ = ["READY", "VERSION", "Schema"]

VERSION: Final = 1
"""The version of this layout. Raise it with every change, and migrate from the one before."""

READY: Final = 0.0
"""In `messages.due_at`: it may be delivered now."""


@final
class Schema:
    """The tables with one prefix.

    Args:
        prefix: what every table's and index's name begins with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._metadata = MetaData()
        self.schema = self._table(
            "schema",
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
        )
        self.results = self._table(
            "results",
            Column("key", Text, primary_key=True),
            Column("task_id", Text, nullable=False),
            Column("name", Text, nullable=False),
            Column("state", Text, nullable=False),
            Column("barrier", BigInteger, nullable=False),
            Column("stored_at", Double, nullable=False),
            Column("expires_at", Double),  # NULL: never
            Column("body", LargeBinary, nullable=False),
        )
        # `due_at` is READY, or the moment that makes it so: the eta, or the end of the lease. So
        # one index finds, per queue, what is ready in the order of delivery, and what becomes
        # ready next, and never walks over what is delayed or leased. `token` outlives the lease:
        # until the message is delivered anew, whoever held it last may still settle it.
        self.messages = self._table(
            "messages",
            Column("seq", Integer, primary_key=True),
            Column("namespace", Text, nullable=False),
            Column("queue", Text, nullable=False),
            Column("message_id", Text, nullable=False),
            Column("priority", Integer, nullable=False),
            Column("due_at", Double, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("token", Text),  # NULL: not leased since it was published or released
            Column("worker", Text),
            Column("body", LargeBinary, nullable=False),
            UniqueConstraint("namespace", "message_id"),
        )
        self.dead_letters = self._table(
            "dead_letters",
            Column("seq", Integer, primary_key=True),
            Column("namespace", Text, nullable=False),
            Column("queue", Text, nullable=False),
            Column("message_id", Text, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("reason", Text, nullable=False),
            Column("buried_at", Double, nullable=False),
            Column("body", LargeBinary, nullable=False),
        )
        self.workers = self._table(
            "workers",
            Column("namespace", Text, primary_key=True),
            Column("queue", Text, primary_key=True),
            Column("worker", Text, primary_key=True),
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

    def _table(self, name: str, *parts: Column[object] | UniqueConstraint) -> Table:
        return Table(self.prefix + name, self._metadata, *parts)

    def creation(self, dialect: Dialect) -> list[str]:
        """Return the statements that create what is missing, in order; harmless if nothing is."""
        parts: list[ExecutableDDLElement] = [
            *(CreateTable(table, if_not_exists=True) for table in self._metadata.sorted_tables),
            *(CreateIndex(index, if_not_exists=True) for index in self._indexes),
        ]
        return [str(part.compile(dialect=dialect)) for part in parts]
