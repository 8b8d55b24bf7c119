"""Private MongoDB servers, and what the tests of this folder open on them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pymongo
import pytest

from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.mongo.results import MongoBackend
from upshot_conformance.servers import MongoDBServer

Inject = Callable[..., None]
OpenClient = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def server(mongodb_server: MongoDBServer) -> MongoDBServer:
    """A replica set of one member that no test may pause or stop."""
    return mongodb_server


@pytest.fixture
def standalone(mongodb_standalone_server: MongoDBServer) -> MongoDBServer:
    """A server in no replica set, that no test may pause or stop."""
    return mongodb_standalone_server


@pytest.fixture
def fragile() -> Iterator[MongoDBServer]:
    """A replica set of the test's own, to pause and restart, and to inject faults into."""
    parameters = ["enableTestCommands=1", "ttlMonitorSleepSecs=1"]
    arguments = [word for parameter in parameters for word in ("--setParameter", parameter)]
    with MongoDBServer(replica_set=True, arguments=arguments) as started:
        yield started


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def backend(server: MongoDBServer) -> Iterator[MongoBackend]:
    opened = MongoBackend(Url.parse(server.url))
    yield opened
    opened.close()


@pytest.fixture
def open_client(namespace: str) -> Iterator[OpenClient]:
    """Open clients on a server or a URL; they are closed when the test is over."""
    opened: list[ResultClient] = []

    def open_on(where: MongoDBServer | str, timeout: float = 30.0) -> ResultClient:
        url = Url.parse(where if isinstance(where, str) else where.url)
        made = ResultClient(
            lambda: MongoBackend(url), url=url, namespace=namespace, timeout=timeout
        )
        opened.append(made)
        return made

    yield open_on
    for client in opened:
        client.close()


@pytest.fixture
def client(server: MongoDBServer, open_client: OpenClient) -> ResultClient:
    return open_client(server)


@pytest.fixture
def driver() -> Iterator[Callable[[str], Any]]:
    """Open pymongo itself on a URL, to look behind a backend."""
    opened: list[Any] = []
    opener: Any = pymongo.MongoClient  # its own hints leave the type of documents open

    def open_on(url: str) -> Any:
        opened.append(opener(url, appname="test"))
        return opened[-1]

    yield open_on
    for each in opened:
        each.close()


@pytest.fixture
def raw(server: MongoDBServer, driver: Callable[[str], Any]) -> Any:
    """The collection on the common server."""
    return driver(server.url)["upshot"]["results"]


@pytest.fixture
def inject() -> Inject:
    """Let a server fail the next commands of upshot's connections, as if by a fault.

    `inject(admin, ["update"], times=2, errorCode=91)`: `admin` is the driver's database of that
    name, the rest is what the server's fail point `failCommand` takes.
    """

    def fail(admin: Any, commands: Sequence[str], *, times: int, **data: Any) -> None:
        data |= {"failCommands": list(commands), "appName": "upshot"}
        admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)

    return fail


@pytest.fixture
def record(namespace: str) -> RecordMaker:
    """Make an encoded record: `record("id", b"body", terminal=True)`."""

    def make(
        task_id: str,
        body: bytes = b"body",
        *,
        terminal: bool = False,
        rank: int = 20,
        expires: float | None = 600.0,
        name: str = "",
    ) -> StoredRecord:
        return StoredRecord(
            key=f"{namespace}:{task_id}",
            body=body,
            rank=rank,
            barrier=NEVER if terminal else rank,
            expires=expires,
            task_id=task_id,
            state="SUCCESS" if terminal else "STARTED",
            name=name,
            reply_to="",
        )

    return make
