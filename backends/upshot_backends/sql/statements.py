"""Every statement that is run, compiled once per open backend or broker.

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
    Table,
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
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from upshot_backends.sql import schema
from upshot_backends.sql.schema import Schema

__all__ = ["MessageStatements", "ResultStatements", "VersionStatements"]

_NOW: Final = bindparam("now", type_=Double)
_LIMIT: Final = bindparam("limit", type_=Integer)
_NO_OFFSET: Final[ColumnElement[int]] = literal_column("0")  # else SQLite's would be a parameter
_ONE: Final[ColumnElement[int]] = literal_column("1")
_READY: Final[ColumnElement[float]] = literal_column(str(schema.READY))


def _text(statement: ClauseElement, dialect: Dialect) -> str:
    """Compile a statement whose parameters all have a name of ours."""
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler):
        raise AssertionError(f"not a statement: {compiled}")
    unnamed = [name for name, bind in compiled.binds.items() if not bind.required]
    if unnamed:
        raise AssertionError(f"constants must be written into the statement: {unnamed}")
    return str(compiled)


def _guarded_upsert(table: Table) -> ClauseElement:
    """Return the store of one record under the guard; the row count tells whether it applied."""
    upsert = sqlite.insert(table)
    columns = {column.name: upsert.excluded[column.name] for column in table.c}
    del columns["key"]
    return upsert.on_conflict_do_update(
        index_elements=[table.c.key],
        set_=columns,
        where=or_(table.c.barrier <= bindparam("rank"), table.c.expires_at <= _NOW),
    )


def _insert_new(table: Table) -> sqlite.Insert:
    """Return an insert that leaves an existing row as it is."""
    return sqlite.insert(table).on_conflict_do_nothing()


@final
class VersionStatements:
    """The version of the schema: put `id` and `version` if there is none, then read it."""

    def __init__(self, schema: Schema, dialect: Dialect) -> None:
        self.put = _text(_insert_new(schema.schema), dialect)
        self.get = _text(select(schema.schema.c.version), dialect)


@final
class ResultStatements:
    """What the result backend runs, and what the broker runs for records beside messages."""

    def __init__(self, schema: Schema, dialect: Dialect) -> None:
        results = schema.results
        key, expires_at = results.c.key, results.c.expires_at
        alive = or_(expires_at.is_(None), expires_at > _NOW)
        wanted = func.json_each(bindparam("keys")).table_valued("value")

        # every column, rank, now
        self.store = _text(_guarded_upsert(results), dialect)
        # keys (a JSON array: one statement for any number), now
        self.load = _text(
            select(key, results.c.body)
            .select_from(wanted.join(results, key == wanted.c.value))
            .where(alive),
            dialect,
        )
        # key, now
        self.load_one = _text(select(results.c.body).where(key == bindparam("key"), alive), dialect)
        # key
        self.delete = _text(delete(results).where(key == bindparam("key")), dialect)
        # first, limit, now: keys from `first` on, in order
        self.scan = _text(
            select(key)
            .where(key >= bindparam("first"), alive)
            .order_by(key)
            .limit(_LIMIT)
            .offset(_NO_OFFSET),
            dialect,
        )
        # now, limit
        expired = select(key).where(expires_at <= _NOW).limit(_LIMIT).offset(_NO_OFFSET)
        self.sweep = _text(delete(results).where(key.in_(expired)), dialect)


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
            return _text(statement, dialect)

        # every column but seq, token and worker
        self.publish = one(
            _insert_new(messages).values(
                {
                    name: bindparam(name)
                    for name in row.keys()  # noqa: SIM118 - a column collection is no mapping
                    if name not in ("seq", "token", "worker")
                }
            )
        )
        # queue: the soonest moment at which something is due there
        self.next_due = one(select(func.min(due_at)).where(queued))
        # queue, now, limit: make ready whose moment has come
        come = (
            select(seq)
            .where(queued, due_at > _READY, due_at <= _NOW)
            .order_by(due_at)
            .limit(_LIMIT)
            .offset(_NO_OFFSET)
        )
        self.promote = one(update(messages).where(seq.in_(come)).values(due_at=_READY))
        # queue, limit
        self.ready = one(
            select(seq, row.priority, row.message_id, row.body, row.deliveries)
            .where(queued, due_at == _READY)
            .order_by(row.priority.desc(), seq)
            .limit(_LIMIT)
            .offset(_NO_OFFSET)
        )
        # seq_, until, token, worker
        self.lease = one(
            update(messages)
            .where(seq == bindparam("seq_"))
            .values(
                due_at=until,
                token=bindparam("token"),
                worker=bindparam("worker"),
                deliveries=row.deliveries + _ONE,
            )
        )
        # message_id, token, until
        self.renew = one(update(messages).where(held).values(due_at=until))
        # message_id, token
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
        # worker, now: this worker's signs, and those that nobody believes any more
        self.sign_off = one(
            delete(workers).where(
                served,
                or_(workers.c.worker == bindparam("worker"), workers.c.seen_until <= _NOW),
            )
        )
        # queue, worker, seen_until
        self.sign_in = one(insert(workers))
        # queue, now
        self.workers = one(
            select(workers.c.worker)
            .where(served, workers.c.queue == bindparam("queue"), workers.c.seen_until > _NOW)
            .order_by(workers.c.worker)
        )
