"""Who creates the tables, when, and what happens where they may not be created."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest

from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage, Settlement
from upshot.errors import ServiceRejectedError, UrlError
from upshot.registry import backend_class, broker_class
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.results import SqlBackend
from upshot_backends.sql.schema import VERSION
from upshot_conformance.servers import Server

BackendOpener = Callable[..., SqlBackend]
BrokerOpener = Callable[..., SqlBroker]
RecordMaker = Callable[..., StoredRecord]
Run = Callable[..., list[tuple[object, ...]]]

_PASSWORD = "s3cret-w0rd"


@pytest.fixture
def limited(service: str, server: Server, run: Run) -> str:
    """The URL of a user who may read and write tables, and create none."""
    name = f"u{uuid.uuid4().hex[:8]}"
    if service == "postgresql":
        run(f"CREATE ROLE {name} LOGIN PASSWORD '{_PASSWORD}'")
        run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        run(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {name}"
        )
    else:
        run(f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY '{_PASSWORD}'")
        run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON upshot.* TO '{name}'@'127.0.0.1'")
    place = server.url.rpartition("@")[2]
    return f"{server.url.partition(':')[0]}://{name}:{_PASSWORD}@{place}"


def use_everything(backend: SqlBackend, broker: SqlBroker, record: StoredRecord) -> None:
    """Call every hook that touches a table."""
    message = QueuedMessage(message_id="m", queue="q", body=b"body")
    broker.publish([message], [record], 10.0)
    (delivery,) = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    assert list(broker.settle([Settlement(delivery=delivery)], 10.0)) == [True]
    assert broker.survey(["q"], 10.0)["q"].workers == ("w",)
    assert backend.load([record.key], 10.0) == [record.body]
    assert list(backend.scan("", 10.0)) == [record.key]
    assert backend.sweep(1000, 10.0) == 0
    backend.delete([record.key], 10.0)


def test_eight_who_create_the_tables_at_once_all_succeed(
    open_backend: BackendOpener, record: RecordMaker, run: Run, prefix: str
) -> None:
    backends = [open_backend() for _ in range(8)]
    together, answers = threading.Barrier(8), list[list[bool]]()

    def work(backend: SqlBackend, key: str) -> None:
        together.wait(30.0)
        answers.append(list(backend.store([record(key)], 30.0)))

    threads = [
        threading.Thread(target=work, args=(backend, f"{number}"))
        for number, backend in enumerate(backends)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [[True]] * 8
    assert run(f"SELECT version FROM {prefix}schema") == [(VERSION,)]


def test_a_user_who_may_create_nothing_works_where_the_tables_are(
    backend: SqlBackend, limited: str, prefix: str, run: Run, record: RecordMaker
) -> None:
    for statement in backend.database.schema.creation(backend.database.dialect):
        run(statement)
    url = Url.parse(f"{limited}?upshot_table_prefix={prefix}")
    mine, broker = backend_class(url)(url), broker_class(url)(url, "ns")
    assert isinstance(mine, SqlBackend)
    assert isinstance(broker, SqlBroker)

    use_everything(mine, broker, record("k"))
    mine.close()
    broker.close()


def test_a_user_who_may_create_nothing_is_told_what_to_run(
    open_backend: BackendOpener, limited: str, prefix: str
) -> None:
    backend = open_backend(f"{limited}?upshot_table_prefix={prefix}")

    with pytest.raises(ServiceRejectedError, match="upshot backends ddl") as refused:
        backend.load(["a"], 10.0)
    assert _PASSWORD not in str(refused.value)


@pytest.mark.parametrize("made", [1, 3, 6])
def test_what_somebody_began_to_create_is_completed(
    backend: SqlBackend, broker: SqlBroker, run: Run, record: RecordMaker, made: int
) -> None:
    for statement in backend.database.schema.creation(backend.database.dialect)[:made]:
        run(statement)

    use_everything(backend, broker, record("k"))


def test_tables_of_a_newer_upshot_are_refused(
    backend: SqlBackend, open_backend: BackendOpener, run: Run, prefix: str
) -> None:
    backend.load(["a"], 10.0)
    run(f"UPDATE {prefix}schema SET version = {VERSION + 1}")

    with pytest.raises(ServiceRejectedError, match="upgrade upshot"):
        open_backend().load(["a"], 10.0)


def test_tables_that_are_dropped_are_missed_and_then_created_by_who_opens_next(
    backend: SqlBackend, open_backend: BackendOpener, run: Run, prefix: str, record: RecordMaker
) -> None:
    backend.store([record("a")], 10.0)
    for table in backend.database.schema.tables:
        run(f"DROP TABLE {table.name}")

    with pytest.raises(ServiceRejectedError, match=f"{prefix}results"):
        backend.load(["a"], 10.0)
    assert open_backend().load(["a"], 10.0) == [None]


def test_tables_with_another_prefix_are_others(
    backend: SqlBackend, open_backend: BackendOpener, server: Server, record: RecordMaker
) -> None:
    other = open_backend(f"{server.url}?upshot_table_prefix=u{uuid.uuid4().hex[:8]}_")
    backend.store([record("a", b"ours")], 10.0)

    assert other.store([record("a", b"theirs")], 10.0) == [True]
    assert backend.load(["a"], 10.0) == [b"ours"]


def test_a_broker_joins_a_backend_on_the_same_tables_only(
    open_broker: BrokerOpener, open_backend: BackendOpener, url: str, server: Server
) -> None:
    broker = open_broker()

    assert broker.joins(open_backend(url))
    assert broker.joins(open_backend(f"db+{url}"))
    assert not broker.joins(open_backend(server.url))
    assert not broker.joins(open_backend(url.replace("127.0.0.1", "localhost")))


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql+asyncpg://h/d", "postgresql://"),
        ("postgresql://h/d?sslmod=require", "sslmod"),
        ("postgresql://h/d?connect_timeout=x", "connect_timeout|float"),
        ("postgresql://h:1,h:2/d?port=1,2,3", "port"),
        ("postgresql://h/d?upshot_schema=" + "x" * 64, "63 bytes"),
        ("postgresql://h/d?upshot_schema=" + "%C3%A4" * 32, "63 bytes"),
        ("postgresql://h/d?upshot_listen=perhaps", "true or false"),
        ("postgresql://h/d?upshot_schem=a", "upshot_schema"),
        ("mysql+asyncmy://h/d", "mysql://"),
        ("mysql://h", "database"),
        ("mysql://h/", "database"),
        ("mysql://h/a/b", "database"),
        ("mysql://h/d?no_such=1", "no_such"),
        ("mysql://h/d?local_infile=1", "local_infile"),
        ("mysql://h/d?client_flag=x", "client_flag"),
        ("mariadb://h/d?upshot_schema=a", "upshot_schema"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str, hint: str) -> None:
    parsed = Url.parse(url)

    with pytest.raises(UrlError, match=hint):
        backend_class(parsed)(parsed)
    with pytest.raises(UrlError, match=hint):
        broker_class(parsed)(parsed, "ns")


@pytest.mark.parametrize("scheme", ["{}", "db+{}", "sqla+{}", "{}+{driver}", "sqla+{}+{driver}"])
def test_all_ways_to_write_the_scheme_mean_the_same_tables(
    open_backend: BackendOpener, record: RecordMaker, url: str, service: str, scheme: str
) -> None:
    driver = "psycopg" if service == "postgresql" else "pymysql"
    open_backend().store([record("k")], 10.0)
    other = url.replace(service, scheme.format(service, driver=driver), 1)

    assert open_backend(other).load(["k"], 10.0) == [b"body"]
