"""The statements that are the same on every service, compiled once per open backend or broker.

Built with SQLAlchemy, so that one description serves every dialect, and compiled to text, because
compiling, or even looking up a compiled statement, costs more than SQLite takes to run it.
All parameters are named; a statement has no others than those that its comment names.
"""

from __future__ import annotations

from typing import Final, final

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Double,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from upshot_backends.sql import schema
from upshot_backends.sql.schema import Schema

__all__ = ["MessageStatements", "ResultStatements", "VersionStatements", "compiled"]

_NOW: Final = bindparam("now", type_=Double)
_LIMIT: Final = bindparam("limit", type_=Integer)
_NO_OFFSET: Final[ColumnElement[int]] = literal_column("0")  # else SQLite's would be a parameter
_ONE: Final[ColumnElement[int]] = literal_column("1")
_READY: Final[ColumnElement[float]] = literal_column(str(schema.READY))


def compiled(statement: ClauseElement, dialect: Dialect) -> str:
    """Compile a statement whose parameters all have a name of ours."""
    text = statement.compile(dialect=dialect)
    if not isinstance(text, SQLCompiler):
        raise AssertionError(f"not a statement: {text}")
    unnamed = [name for name, bind in text.binds.items() if not bind.required]
    if unnamed:
        raise AssertionError(f"constants must be written into the statement: {unnamed}")
    return str(text)


@final
class VersionStatements:
    """The version of the schema, which `Schema.creation` puts there."""

    def __init__(self, schema: Schema, dialect: Dialect) -> None:
        self.get = compiled(select(schema.schema.c.version), dialect)


@final
class ResultStatements:
    """What is run on `results` in the same words everywhere."""

    def __init__(self, schema: Schema, dialect: Dialect) -> None:
        results = schema.results
        key, expires_at = results.c.key, results.c.expires_at
        alive = or_(expires_at.is_(None), expires_at > _NOW)

        # key, now
        self.load_one = compiled(
            select(results.c.body).where(key == bindparam("key"), alive), dialect
        )
        # first, limit, now: keys from `first` on, in order
        self.scan = compiled(
            select(key)
            .where(key >= bindparam("first"), alive)
            .order_by(key)
            .limit(_LIMIT)
            .offset(_NO_OFFSET),
            dialect,
        )
        # now, limit: some keys that have expired
        self.expired = compiled(
            select(key).where(expires_at <= _NOW).limit(_LIMIT).offset(_NO_OFFSET), dialect
        )


@final
class MessageStatements:
    """What the broker runs; `namespace` is a parameter of each."""

    def __init__(self, schema: Schema, dialect: Dialect) -> None:
        messages, dead, workers = schema.messages, schema.dead_letters, schema.workers
        row, due_at, seq = messages.c, messages.c.due_at, messages.c.seq
        here = row.namespace == bindparam("namespace")
        queued = and_(here, row.queue == bindparam("queue"))
        held = and_(
            here,
            row.message_id == bindparam("message_id"),
            row.token == bindparam("token"),
        )
        leased = and_(due_at > _NOW, row.token.is_not(None))
        buried = and_(
            dead.c.namespace == bindparam("namespace"), dead.c.queue == bindparam("queue")
        )
        served = workers.c.namespace == bindparam("namespace")
        until = bindparam("until", type_=Double)

        def one(statement: ClauseElement) -> str:
            return compiled(statement, dialect)

        # queue: the soonest moment at which something is due there
        self.next_due = one(select(func.min(due_at)).where(queued))
        # message_id, token, until
        self.renew = one(update(messages).where(held).values(due_at=until))
        # message_id, token
        self.hold = one(select(seq).where(held).with_for_update())
        self.remove = one(delete(messages).where(held))
        self.release = one(
            update(messages)
            .where(held)
            .values(
                due_at=_READY,
                token=null(),
                worker=null(),
                deliveries=row.deliveries - _ONE,
            )
        )
        # message_id, token, reason, now; `remove` follows
        copied = ("namespace", "queue", "message_id", "deliveries", "body")
        self.bury = one(
            insert(dead).from_select(
                [*copied, "reason", "buried_at"],
                select(*(row[name] for name in copied), bindparam("reason"), _NOW).where(held),
            )
        )
        # queue, now: ready, delayed and leased in that order
        counts = [
            select(func.count()).select_from(messages).where(queued, condition).scalar_subquery()
            for condition in (due_at <= _NOW, and_(due_at > _NOW, row.token.is_(None)), leased)
        ]
        buried_count = select(func.count()).select_from(dead).where(buried).scalar_subquery()
        self.count = one(select(*counts, buried_count))
        # queue, now
        self.purge = one(delete(messages).where(queued, or_(due_at <= _NOW, row.token.is_(None))))
        # queue
        self.purge_dead = one(delete(dead).where(buried))
        # worker, now, until: signs that nobody believes any more, and those of this worker that
        # it did not give just now
        mine, seen_until = workers.c.worker == bindparam("worker"), workers.c.seen_until
        self.stale_signs = one(
            select(workers.c.queue, workers.c.worker, seen_until).where(
                served, or_(seen_until <= _NOW, and_(mine, seen_until != until))
            )
        )
        # queue, worker, until: unless it was given anew
        self.sign_off = one(
            delete(workers).where(
                served, workers.c.queue == bindparam("queue"), mine, seen_until <= until
            )
        )
        # queue, now
        self.workers = one(
            select(workers.c.worker)
            .where(served, workers.c.queue == bindparam("queue"), workers.c.seen_until > _NOW)
            .order_by(workers.c.worker)
        )
