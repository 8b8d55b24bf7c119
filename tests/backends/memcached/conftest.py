"""Private memcached servers, and what the tests of this folder open on them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymemcache.client.base import Client  # type: ignore[import-untyped]  # hints, but no py.typed

from upshot.backend import StoredRecord
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]


def url_of(*servers: MemcachedServer) -> str:
    """Return the URL of several servers together."""
    return "memcached://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


@pytest.fixture
def server(memcached_server: MemcachedServer) -> MemcachedServer:
    """A server that no test may pause or stop."""
    return memcached_server


@pytest.fixture
def fragile() -> Iterator[MemcachedServer]:
    """A server of the test's own, to pause and restart."""
    with MemcachedServer() as started:
        yield started


@pytest.fixture
def other() -> Iterator[MemcachedServer]:
    """Another server of the test's own."""
    with MemcachedServer() as started:
        yield started


@pytest.fixture
def together() -> Callable[..., str]:
    """Make the URL of several servers."""
    return url_of


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def open_backend(server: MemcachedServer) -> Iterator[BackendOpener]:
    """Opens backends at a URL, by default the common server's."""
    opened: list[MemcachedBackend] = []

    def open_one(url: str = server.url) -> MemcachedBackend:
        opened.append(MemcachedBackend(Url.parse(url)))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


@pytest.fixture
def backend(open_backend: BackendOpener) -> MemcachedBackend:
    return open_backend()


@pytest.fixture
def open_raw() -> Iterator[Callable[[MemcachedServer], Any]]:
    """Opens the driver itself on a server, to look behind a backend."""
    opened: list[Any] = []

    def open_one(server: MemcachedServer) -> Any:
        client: Any = Client(("127.0.0.1", server.port), default_noreply=False, timeout=10)
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def raw(server: MemcachedServer, open_raw: Callable[[MemcachedServer], Any]) -> Any:
    """The driver itself on the common server."""
    return open_raw(server)


@pytest.fixture
def harness(server: MemcachedServer) -> Iterator[MemcachedHarness]:
    """Lists what the common server holds."""
    opened = MemcachedHarness(Url.parse(server.url))
    yield opened
    opened.close()


@pytest.fixture
def record(namespace: str) -> RecordMaker:
    """Make an encoded record: `record("id", b"body", terminal=True)`."""

    def make(
        name: str,
        body: bytes = b"body",
        *,
        terminal: bool = False,
        rank: int = 20,
        expires: float | None = 60.0,
    ) -> StoredRecord:
        return StoredRecord(
            key=f"{namespace}:{name}",
            body=body,
            rank=rank,
            barrier=NEVER if terminal else rank,
            expires=expires,
            task_id=name,
            state="SUCCESS" if terminal else "STARTED",
            name="",
            reply_to="",
        )

    return make
