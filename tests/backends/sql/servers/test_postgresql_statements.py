"""PostgreSQL: which statements are prepared, and for how long a plan is kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

import pytest

from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage, Settlement
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.sql.postgresql.broker import PostgresqlBroker
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.cursor import PatientCursor
from upshot_backends.sql.postgresql.results import PostgresqlBackend
from upshot_conformance.servers import PgBouncerServer, PostgreSQLServer

RecordMaker = Callable[..., StoredRecord]

_PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'upshot%'"
_PLANS = "SELECT current_setting('plan_cache_mode')"


def asked(database: PostgresqlDatabase, statement: str) -> Any:
    """Return the one value that a statement finds on the connection that the last call used."""

    def ask(cursor: Any) -> Any:
        cursor.execute(statement)
        return cursor.fetchall()[0][0]

    return database.run(10.0, ask)


def test_what_is_used_often_is_prepared_and_planned_anew_each_time(
    postgresql_server: PostgreSQLServer, record: RecordMaker
) -> None:
    backend = PostgresqlBackend(Url.parse(postgresql_server.url))
    database = cast("PostgresqlDatabase", backend.database)
    try:
        backend.load(["a"], 10.0)
        assert int(asked(database, _PREPARED)) == 0
        for number in range(5):
            assert backend.store([record(f"a{number}")], 10.0) == [True]
            assert backend.load([f"a{number}", "b"], 10.0) == [b"body", None]

        assert int(asked(database, _PREPARED)) == 2
        assert asked(database, _PLANS) == "force_custom_plan"
    finally:
        backend.close()


def test_an_exchange_is_one_statement(
    postgresql_server: PostgreSQLServer, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = PostgresqlBroker(Url.parse(postgresql_server.url), "one statement")
    try:
        messages = [QueuedMessage(message_id=name, queue="q", body=b"") for name in "abc"]
        broker.publish(messages, (), 10.0)
        (first,) = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
        sent: list[str] = []
        plain = PatientCursor.execute

        def counted(cursor: PatientCursor, statement: str, *values: Any) -> object:
            sent.append(statement)
            return plain(cursor, statement, *values)

        monkeypatch.setattr(PatientCursor, "execute", counted)
        for ended in (record("exchanged"), None):
            applied, ours, (first,) = broker.exchange(
                Settlement(delivery=first), ended, ["q"], lease=60.0, worker="w", timeout=10.0
            )
            assert (applied, ours) == (ended is not None, True)
        assert first.message_id == "c"
        assert len(sent) == 2
    finally:
        broker.close()


def test_nothing_is_prepared_where_somebody_stands_between(
    postgresql_server: PostgreSQLServer, record: RecordMaker
) -> None:
    with PgBouncerServer(postgresql_server.url, pool_mode="transaction") as proxy:
        backend = PostgresqlBackend(Url.parse(proxy.url))
        database = cast("PostgresqlDatabase", backend.database)
        try:
            for number in range(5):
                assert backend.store([record(f"p{number}")], 10.0) == [True]

            assert int(asked(database, _PREPARED)) == 0
            assert asked(database, _PLANS) == "auto"
        finally:
            backend.close()


def test_a_statement_that_was_prepared_outlives_a_change_of_its_tables(
    postgresql_server: PostgreSQLServer, record: RecordMaker
) -> None:
    backend = PostgresqlBackend(Url.parse(postgresql_server.url))
    database = cast("PostgresqlDatabase", backend.database)
    table = database.schema.results.name
    try:
        for number in range(5):
            backend.store([record(f"c{number}")], 10.0)
        database.run(10.0, lambda cursor: cursor.execute(f"ALTER TABLE {table} ADD extra integer"))

        assert backend.store([record("d")], 10.0) == [True]
        assert backend.load(["d"], 10.0) == [b"body"]
    finally:
        database.run(10.0, lambda cursor: cursor.execute(f"ALTER TABLE {table} DROP extra"))
        backend.close()


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE {messages} ALTER deliveries TYPE bigint", "DISCARD ALL"],
    ids=["other columns", "a discarded session"],
)
def test_what_was_prepared_and_holds_no_longer_is_prepared_anew(
    postgresql_server: PostgreSQLServer, change: str
) -> None:
    """No caller sees it: connections that still know the old statements are closed."""
    url = Url.parse(f"{postgresql_server.url}?upshot_table_prefix=t{uuid.uuid4().hex[:8]}_")
    service = OpenService(lambda: PostgresqlBroker(url, "changes"), url=url, timeout=10.0)

    def fetched() -> list[str]:
        found = service.call(
            lambda broker, _: broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
        )
        return [each.message_id for each in found]

    messages = [QueuedMessage(message_id=f"{number}", queue="q", body=b"") for number in range(9)]
    service.call(lambda broker, seconds: broker.publish(messages, (), seconds))
    database = service.current.database
    try:
        for number in range(5):
            assert fetched() == [f"{number}"]
        statement = change.format(messages=database.schema.messages.name)
        database.run(10.0, lambda cursor: cursor.execute(statement))

        assert fetched() == ["5"]
        assert fetched() == ["6"]
    finally:
        service.close()
