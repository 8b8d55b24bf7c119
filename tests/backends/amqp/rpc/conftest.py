"""Submitters and workers that send each other results over a private RabbitMQ server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.states import NEVER
from upshot.url import Url
from upshot_backends.amqp.channel import Channel
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import RefusedForNowError
from upshot_backends.amqp.results import AmqpBackend
from upshot_conformance.harnesses.rabbitmq import RabbitMQHarness
from upshot_conformance.servers import RabbitMQServer

ClientOpener = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def open_client(server: RabbitMQServer, namespace: str) -> Iterator[ClientOpener]:
    """Opens clients in the test's namespace, by default on the common server."""
    with contextlib.ExitStack() as stack:

        def open_one(url: str | None = None, *, timeout: float = 30.0) -> ResultClient:
            parsed = Url.parse(url or server.url)
            client = ResultClient(
                lambda: AmqpBackend(parsed), url=parsed, namespace=namespace, timeout=timeout
            )
            return stack.enter_context(contextlib.closing(client))

        yield open_one


@pytest.fixture
def submitter(open_client: ClientOpener) -> ResultClient:
    return open_client()


@pytest.fixture
def worker(open_client: ClientOpener, server: RabbitMQServer) -> ResultClient:
    """A client that shares nothing with `submitter`, as if it were in another process."""
    return open_client(elsewhere(server.url))


@pytest.fixture
def elsewhere_url() -> Callable[[str], str]:
    """Makes of a URL one of the same server that shares nothing with it in this process."""
    return elsewhere


def elsewhere(url: str) -> str:
    return f"{url}?upshot_reply_expires=45"


@pytest.fixture
def connections(server: RabbitMQServer) -> Callable[[], int]:
    """Counts the connections to the common server."""
    return RabbitMQHarness(Url.parse(server.url)).connections


@pytest.fixture
def is_there(connection: AmqpConnection) -> Callable[[str], bool]:
    """Tells whether the common server has a queue of that name."""

    def ask(name: str) -> bool:
        async def look(session: Session) -> None:
            channel: Channel = await session.channel()
            await channel.declare(name, passive=True)
            channel.close()

        try:
            connection.call(look, 30.0)
        except RefusedForNowError:
            return False
        return True

    return ask


@pytest.fixture
def record(namespace: str) -> RecordMaker:
    """Make an encoded record: `record("id", b"body", terminal=True)`."""

    def make(
        name: str,
        body: bytes = b"body",
        *,
        terminal: bool = False,
        rank: int = 20,
        expires: float | None = 600.0,
        reply_to: str = "",
        state: str = "",
    ) -> StoredRecord:
        return StoredRecord(
            key=f"{namespace}:{name}",
            body=body,
            rank=rank,
            barrier=NEVER if terminal else rank,
            expires=expires,
            task_id=name,
            state=state or ("SUCCESS" if terminal else "STARTED"),
            name="",
            reply_to=reply_to,
        )

    return make
