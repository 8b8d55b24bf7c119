"""A private Redis server, and what the tests of this folder open on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from upshot.backend import StoredRecord
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """A server that no test may pause or stop."""
    return redis_server


@pytest.fixture
def fragile() -> Iterator[RedisServer]:
    """A server of the test's own, to pause and restart."""
    with RedisServer() as started:
        yield started


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def backend(server: RedisServer) -> Iterator[RedisBackend]:
    opened = RedisBackend(Url.parse(server.url))
    yield opened
    opened.close()


@pytest.fixture
def broker(server: RedisServer, namespace: str) -> Iterator[RedisBroker]:
    opened = RedisBroker(Url.parse(server.url), namespace)
    yield opened
    opened.close()


@pytest.fixture
def driver() -> Callable[[str], Any]:
    """Open redis-py itself on a URL, to look behind a backend. Its own hints are incomplete."""
    opener: Any = redis.Redis
    return lambda url: opener.from_url(url, protocol=2)


@pytest.fixture
def raw(server: RedisServer, driver: Callable[[str], Any]) -> Iterator[Any]:
    """The driver itself on the common server."""
    opened = driver(server.url)
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
