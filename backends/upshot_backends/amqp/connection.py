"""What the RabbitMQ backend and the RabbitMQ broker share: connections, kept by a thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, final

from upshot import clock
from upshot.url import Url
from upshot_backends.amqp.channel import Channel
from upshot_backends.amqp.driver import (
    ConnectionLostError,
    NoAnswerError,
    abort,
    connect,
    driver_options,
    drop,
)
from upshot_backends.amqp.io_thread import FAREWELL, IoThread, Operation, Settle
from upshot_backends.amqp.publisher import Parcel, Publisher, Settled

__all__ = ["AmqpConnection", "Session"]

T = TypeVar("T")


@final
class Session:
    """One open connection to the server, until it is lost. Only for the thread that opened it.

    Args:
        connection: pika's.
    """

    def __init__(self, connection: Any) -> None:
        self.lost: Exception | None = None
        """Why it can be used no more; None while it can."""
        if not connection.is_open:  # nobody listened yet when it was lost
            self.lost = ConnectionLostError("lost as soon as it was open")
        self._raw = connection
        self._publisher: Publisher | None = None
        self._opening: asyncio.Task[Publisher] | None = None
        self.since = clock.monotonic()
        """When it was opened, on the monotonic clock."""
        self._is_unblocked = asyncio.Event()
        self._is_unblocked.set()
        self._is_closed = asyncio.Event()
        self._when_lost: list[Callable[[Exception], object]] = []
        connection.add_on_close_callback(self._on_close)
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def is_blocked(self) -> bool:
        """The server takes no messages from us at the moment: it lacks memory or disk space."""
        return not self._is_unblocked.is_set()

    @property
    def received(self) -> int:
        """How many bytes the server has sent so far."""
        return int(self._raw.bytes_received)

    @property
    def server(self) -> Mapping[str, Any]:
        """What the server said of itself: `product`, `version`, `cluster_name` and more."""
        return self._raw.server_properties or {}

    def when_lost(self, callback: Callable[[Exception], object]) -> None:
        """Call `callback(reason)` once the connection is lost or closed."""
        self._when_lost.append(callback)

    async def channel(self) -> Channel:
        """Open a channel."""
        self._check()
        return await Channel.open(self._raw)

    async def publish(self, parcels: Sequence[Parcel]) -> list[bool]:
        """Publish with confirms, all at once; see `Publisher.publish`.

        All callers share one channel, which is opened anew if the server has closed it.
        """
        self._check()
        publisher = self._ready()
        if publisher is None:
            task = self._opening
            if task is None or task.done():
                task = asyncio.create_task(Publisher.open(self._raw, self._is_unblocked))
                task.add_done_callback(_look_at_error)
                self._opening = task
            publisher = await asyncio.shield(task)
            self._publisher = publisher
        return await publisher.publish(parcels)

    def begin(self, parcels: Sequence[Parcel], settled: Settled) -> bool:
        """Do what `publish` does, if it can be done without waiting; see `Publisher.begin`."""
        publisher = self._ready()
        return publisher is not None and publisher.begin(parcels, settled)

    def _ready(self) -> Publisher | None:
        """Return who publishes, None if it has to be made first."""
        publisher = self._publisher
        return publisher if publisher is not None and publisher.channel.ended is None else None

    def abort(self, why: Exception) -> None:
        """Drop the connection at once."""
        abort(self._raw, why)

    async def close(self) -> None:
        """Say farewell, and drop the connection if the server does not answer in time."""
        if self.lost is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    if self._raw.is_open:
                        self._raw.close()
                    await self._is_closed.wait()
            await drop(self._raw, ConnectionLostError("closed by this process"))

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost.with_traceback(None)

    def _on_blocked(self, *_: Any) -> None:
        self._is_unblocked.clear()

    def _on_unblocked(self, *_: Any) -> None:
        self._is_unblocked.set()

    def _on_close(self, _: Any, why: Exception) -> None:
        self.lost = why
        self._is_closed.set()
        self._is_unblocked.set()  # so that who waits for it sees that the channel has ended
        for callback in self._when_lost:
            callback(why)


@final
class AmqpConnection:
    """A connection to one RabbitMQ server, opened when it is needed and again after it was lost.

    A message that is unacknowledged when the connection is lost goes to somebody else. A server
    that lacks memory or disk space stops reading from connections that publish. So publish and
    consume on different ones.

    Args:
        url: `amqp://`, `amqps://` or `pyamqp://`, with pika's own parameters. Of these,
            `connection_attempts`, `retry_delay` and `blocked_connection_timeout` have no effect:
            upshot retries and counts time by itself. Without a user it is guest, without a
            password it is guest, and without a path the virtual host is `/`.
        thread: what runs it.
        disposable: nothing is lost with it but unanswered calls. Then it is dropped when a call
            has ended unanswered and the server was silent all the time: a new connection finds
            out sooner than heartbeats what is alive.

    Raises:
        UrlError: pika does not take a parameter.
    """

    def __init__(self, url: Url, thread: IoThread, *, disposable: bool = False) -> None:
        self.heartbeat: int | None = None
        """Seconds of silence after which either side gives the other up, if the URL does not ask
        for less; for the next opening. None for what the URL says."""
        self._options = driver_options(url)
        self._thread = thread
        self._disposable = disposable
        self._opening: asyncio.Task[Session] | None = None
        self._session: Session | None = None
        thread.at_close(self._close)

    def call(self, operation: Callable[[Session], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run `operation(session)` on the connection's thread; called by any thread.

        Args:
            operation: a coroutine function; it must not block.
            timeout: seconds for all, opening the connection included.

        Raises:
            NoAnswerError: the time was up.
            AMQPError, OSError: what became of the connection, or of a channel.
        """

        return self._thread.run(self._operation(operation), timeout)

    def publish(self, parcels: Sequence[Parcel], timeout: float) -> list[bool]:
        """Publish with confirms; called by any thread. See `Publisher.publish` and `call`."""

        def begin(settle: Settle[list[bool]]) -> Callable[[], None] | None:
            session, silent = self.current, self._silence()
            return silent if session is not None and session.begin(parcels, settle) else None

        async def publish(session: Session) -> list[bool]:
            return await session.publish(parcels)

        return self._thread.run(self._operation(publish), timeout, quick=begin)

    def _operation(self, operation: Callable[[Session], Coroutine[Any, Any, T]]) -> Operation[T]:
        """Return what does `operation` with the open session."""

        async def opened() -> T:
            return await operation(await self.session())

        async def watched() -> T:
            silent = self._silence()
            try:
                return await opened()
            except asyncio.CancelledError:
                silent()
                raise

        return watched if self._disposable else opened

    def _silence(self) -> Callable[[], None]:
        """Return what drops the connection if the server is silent from now until it is called."""
        before = self._session
        heard = before.received if before else 0

        def silent() -> None:
            if before and not before.lost and not before.is_blocked and before.received == heard:
                before.abort(NoAnswerError("the server was silent for too long"))

        return silent

    @property
    def since(self) -> float:
        """When it was last opened, on the monotonic clock."""
        return self._session.since if self._session else -math.inf

    @property
    def current(self) -> Session | None:
        """The open session, None if there is none now; only for the connection's thread."""
        return self._session if self._session and self._session.lost is None else None

    async def session(self) -> Session:
        """Return the open session, opening it if need be; only for the connection's thread."""
        if self.current is not None:
            return self.current
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
            self._opening.add_done_callback(_look_at_error)
        # Several operations may wait for one opening: one that gives up must not end it.
        return await asyncio.shield(self._opening)

    async def _open(self) -> Session:
        self._session = Session(await connect(self._options, self.heartbeat))
        return self._session

    def _opened(self, _: asyncio.Task[Session]) -> None:
        self._opening = None

    async def _close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self.current is not None:
            await self.current.close()


def _look_at_error(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from reporting an error that nobody waited for: everybody's time was up."""
    if not task.cancelled():
        task.exception()
