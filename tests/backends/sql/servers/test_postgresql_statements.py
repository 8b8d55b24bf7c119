"""PostgreSQL: which statements are prepared, and for how long a plan is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from upshot.backend import StoredRecord
from upshot.url import Url
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
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
