"""Private servers, the driver itself on them, and what the tests of this folder open there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

from upshot.registry import backend_class, broker_class
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.results import SqlBackend
from upshot_conformance.servers import MariaDBServer, PostgreSQLServer, Server

BackendOpener = Callable[..., SqlBackend]
BrokerOpener = Callable[..., SqlBroker]
Run = Callable[..., list[tuple[Any, ...]]]


Connect = Callable[[str], Run]


@pytest.fixture(params=["postgresql", "mariadb"])
def service(request: pytest.FixtureRequest) -> str:
    """The name of each service in turn."""
    name: str = request.param
    return name


@pytest.fixture
def server(service: str, request: pytest.FixtureRequest) -> Server:
    """A server that no test may pause or stop."""
    found: Server = request.getfixturevalue(f"{service}_server")
    return found


@pytest.fixture
def fragile(service: str) -> Iterator[Server]:
    """A server of the test's own, to pause and restart."""
    kind = PostgreSQLServer if service == "postgresql" else MariaDBServer
    with kind() as started:
        yield started


@pytest.fixture
def prefix() -> str:
    """What the names of the test's own tables begin with."""
    return f"t{uuid.uuid4().hex[:8]}_"


@pytest.fixture
def url(server: Server, prefix: str) -> str:
    """Tables of the test's own, which are not there yet."""
    return f"{server.url}?upshot_table_prefix={prefix}"


@pytest.fixture
def open_backend(url: str) -> Iterator[BackendOpener]:
    """Opens backends at a URL, by default on the test's tables."""
    opened: list[SqlBackend] = []

    def open_one(at: str = url) -> SqlBackend:
        parsed = Url.parse(at)
        backend = backend_class(parsed)(parsed)
        assert isinstance(backend, SqlBackend)
        opened.append(backend)
        return backend

    yield open_one
    for backend in opened:
        backend.close()


@pytest.fixture
def backend(open_backend: BackendOpener) -> SqlBackend:
    return open_backend()


@pytest.fixture
def open_broker(url: str) -> Iterator[BrokerOpener]:
    """Opens brokers at a URL, by default on the test's tables."""
    opened: list[SqlBroker] = []

    def open_one(at: str = url, namespace: str = "ns") -> SqlBroker:
        parsed = Url.parse(at)
        broker = broker_class(parsed)(parsed, namespace)
        assert isinstance(broker, SqlBroker)
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(open_broker: BrokerOpener) -> SqlBroker:
    return open_broker()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens the driver itself, to look behind a backend and to get in its way.

    Returns what runs a statement there.
    """
    opened: list[Any] = []

    def open_one(url: str) -> Run:
        connection: Any
        if url.startswith("postgresql"):
            bare = url.partition("?")[0]
            connection = psycopg.connect(bare, autocommit=True, connect_timeout=10)
        else:
            parts = urlsplit(url)
            connection = pymysql.connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=parts.username,
                password=parts.password or "",
                database=parts.path[1:],
                autocommit=True,
            )
        opened.append(connection)

        def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
            cursor = connection.cursor()
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

        return run

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def run(connect: Connect, server: Server) -> Run:
    """Runs a statement on the common server, through one connection of its own."""
    return connect(server.url)
