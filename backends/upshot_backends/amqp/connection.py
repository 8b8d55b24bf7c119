"""What the RabbitMQ backend and the RabbitMQ broker share: a thread that owns connections.

pika's connections are not for several threads. So one thread, with an event loop, owns all that
a backend or a broker has open. It answers heartbeats whatever the process's other threads do, and
runs operations for them: coroutine functions that are bounded by the time their caller has.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar, final

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
from upshot_backends.amqp.publisher import Parcel, Publisher

__all__ = ["AmqpConnection", "IoThread", "Session"]

T = TypeVar("T")

_FAREWELL: Final = 0.4  # seconds for a server to hear that we close; `rpc://` says it 3 times
_GRACE: Final = 1.0  # seconds for an operation that was cancelled to end


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that resolves host names on threads the interpreter does not wait for."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        answer: asyncio.Future[Any] = self.create_future()

        def settle(found: Any) -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def resolve() -> None:
            found: Any
            try:
                found = socket.getaddrinfo(host, port, **options)
            except (OSError, UnicodeError) as exc:
                found = exc
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(settle, found)

        threading.Thread(target=resolve, name="upshot-amqp-resolver", daemon=True).start()
        return await answer


@final
class IoThread:
    """One thread with an event loop, for the connections of one backend or broker.

    It starts with the first operation and ends with `close`. It is a daemon and has no finaliser:
    the interpreter may end at any moment, and a forked child never touches it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()
        self._at_close: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.closed = False
        """True from the moment that `close` was called."""

    def run(self, operation: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run a coroutine function on the thread, and return or raise what it does.

        It is cancelled when the time is up, or the calling thread is interrupted by an exception.

        Args:
            operation: called on the thread.
            timeout: seconds.

        Raises:
            NoAnswerError: the time was up.
            ConnectionLostError: `close` was called, before or meanwhile.
        """
        # The calling thread keeps the time. A timer in the loop would outlive each operation, as
        # asyncio takes cancelled ones out of its heap by the hundred.
        over = threading.Event()

        async def watched() -> T:
            try:
                return await operation()
            finally:
                over.set()

        future = self._submit(watched())
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise ConnectionLostError("closed by this process") from None
        except TimeoutError as exc:
            if not future.cancel():  # it ended at this moment, or raised the error itself
                return future.result()
            over.wait(_GRACE)  # what it does about its end comes before the next operation
            raise NoAnswerError(f"no answer within {timeout:g} seconds") from exc
        except BaseException as exc:
            future.cancel()  # after an interrupt of this thread it must not go on alone
            if self.closed and isinstance(exc, Exception):  # whatever it says, that is why
                raise ConnectionLostError("closed by this process") from exc
            raise

    def at_close(self, farewell: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `farewell()` on the thread, for a moment, before it ends."""
        self._at_close.append(farewell)

    def close(self) -> None:
        """End the thread and what its operations wait for; idempotent, raises nothing."""
        with self._lock:
            self.closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or os.getpid() != self._owner:
            return
        with contextlib.suppress(Exception):  # whatever fails now, the loop's end frees the rest
            asyncio.run_coroutine_threadsafe(self._say_farewell(), loop).result(2 * _FAREWELL)
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(2 * _FAREWELL)

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self.closed:
                coroutine.close()
                raise ConnectionLostError("closed by this process")
            if self._loop is None:
                self._loop = _Loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="upshot-amqp", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _say_farewell(self) -> None:
        await asyncio.gather(*(farewell() for farewell in self._at_close), return_exceptions=True)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then end what is left in it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


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
        self._publisher: asyncio.Task[Publisher] | None = None
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
        task = self._publisher
        if task is None or (task.done() and (task.exception() or task.result().channel.ended)):
            task = asyncio.create_task(Publisher.open(self._raw, self._is_unblocked))
            task.add_done_callback(_look_at_error)
            self._publisher = task
        publisher = await asyncio.shield(task)
        return await publisher.publish(parcels)

    def abort(self, why: Exception) -> None:
        """Drop the connection at once."""
        abort(self._raw, why)

    async def close(self) -> None:
        """Say farewell, and drop the connection if the server does not answer in time."""
        if self.lost is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
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

        async def opened() -> T:
            return await operation(await self.session())

        async def watched() -> T:
            before = self._session
            heard = before.received if before else 0
            try:
                return await opened()
            except asyncio.CancelledError:
                if (
                    before
                    and not before.lost
                    and not before.is_blocked
                    and before.received == heard
                ):
                    before.abort(NoAnswerError("the server was silent for too long"))
                raise

        return self._thread.run(watched if self._disposable else opened, timeout)

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
