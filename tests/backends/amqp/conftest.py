"""A private RabbitMQ server, a network that can fail, and what the tests of this folder open."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from upshot import clock
from upshot.url import Url
from upshot_backends.amqp.broker import AmqpBroker
from upshot_backends.amqp.connection import AmqpConnection
from upshot_backends.amqp.io_thread import IoThread
from upshot_conformance.servers import RabbitMQServer

ConnectionOpener = Callable[..., AmqpConnection]


@pytest.fixture
def server(rabbitmq_server: RabbitMQServer) -> RabbitMQServer:
    """A server that no test may pause, stop or starve."""
    return rabbitmq_server


@pytest.fixture(scope="package")
def _fragile() -> Iterator[RabbitMQServer]:
    with RabbitMQServer() as started:
        yield started


@pytest.fixture
def fragile(_fragile: RabbitMQServer) -> RabbitMQServer:
    """A server to kill, pause and starve; it takes ten seconds to start, so tests share it."""
    if not _fragile.running:
        _fragile.restart()
    return _fragile


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def thread() -> Iterator[IoThread]:
    opened = IoThread()
    yield opened
    opened.close()


@pytest.fixture
def open_connection(server: RabbitMQServer, thread: IoThread) -> ConnectionOpener:
    """Opens connections to a URL, by default the common server's."""

    def open_one(url: str | None = None, *, disposable: bool = False) -> AmqpConnection:
        return AmqpConnection(Url.parse(url or server.url), thread, disposable=disposable)

    return open_one


@pytest.fixture
def connection(open_connection: ConnectionOpener) -> AmqpConnection:
    return open_connection()


@pytest.fixture
def open_broker(server: RabbitMQServer, namespace: str) -> Iterator[Callable[..., AmqpBroker]]:
    """Opens brokers at a URL, by default the common server's, in the test's namespace."""
    opened: list[AmqpBroker] = []

    def open_one(url: str | None = None, *, within: str | None = None) -> AmqpBroker:
        opened.append(AmqpBroker(Url.parse(url or server.url), within or namespace))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is so; fail after thirty seconds."""

    def wait(is_so: Callable[[], bool]) -> None:
        deadline = clock.Deadline(30.0)
        while not is_so():
            assert not deadline.expired
            clock.sleep(0.01)

    return wait


class Network:
    """A way to a server that can be slow, dead or cut, and that counts heartbeats.

    Args:
        target: the URL of the server.
        delay: seconds that everything from the server is late.
        tls: ends TLS here, so that a plain server can be reached by it.
    """

    def __init__(
        self, target: str, *, delay: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.heartbeats = 0
        self.connections = 0
        self._target = urlsplit(target)
        self._delay = delay
        self._tls = tls
        self._alive = threading.Event()
        self._alive.set()
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        number: int = self._listening.getsockname()[1]
        return number

    @property
    def url(self) -> str:
        """The server's URL, by this way."""
        account = self._target.netloc.rpartition("@")[0]
        target = self._target._replace(netloc=f"{account}@127.0.0.1:{self.port}")
        return target._replace(scheme="amqps" if self._tls else "amqp").geturl()

    def die(self) -> None:
        """Let nothing through any more, without telling anybody."""
        self._alive.clear()

    def revive(self) -> None:
        self._alive.set()

    def cut(self) -> None:
        """Break every connection; new ones are let through."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self._open.clear()
        self._alive.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while self._open.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            stack.enter_context(client)
            server = (self._target.hostname, self._target.port or 0)
            upstream = stack.enter_context(socket.create_connection(server))
            self.connections += 1
            self._pairs.append((client, upstream))
            while self._open.is_set():
                waiting = isinstance(client, ssl.SSLSocket) and client.pending()
                ready = [client] if waiting else select.select([client, upstream], [], [])[0]
                for source in ready:
                    data = source.recv(65536)
                    self._alive.wait()
                    if not data:
                        return
                    if source is client:
                        # A frame of type 8 on channel 0, without a body.
                        self.heartbeats += data.count(b"\x08\0\0\0\0\0\0\xce")
                        upstream.sendall(data)
                    else:
                        clock.sleep(self._delay)
                        client.sendall(data)


@pytest.fixture
def open_network(server: RabbitMQServer) -> Iterator[Callable[..., Network]]:
    """Opens ways to a server, by default the common one."""
    opened: list[Network] = []

    def open_one(url: str | None = None, **options: object) -> Network:
        opened.append(Network(url or server.url, **options))  # type: ignore[arg-type]  # the test's
        return opened[-1]

    yield open_one
    for network in opened:
        network.close()


@pytest.fixture
def network(open_network: Callable[..., Network]) -> Network:
    return open_network()
