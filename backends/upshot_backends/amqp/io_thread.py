"""The thread that owns connections, and how other threads have it do something for them.

pika's connections are not for several threads. So one thread, with an event loop, owns all that
a backend or a broker has open. It answers heartbeats whatever the process's other threads do, and
runs operations for them: coroutine functions that are bounded by the time their caller has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, cast, final

from upshot_backends.amqp.driver import ConnectionLostError, NoAnswerError

__all__ = ["FAREWELL", "IoThread", "Operation", "Quick", "Settle"]

T = TypeVar("T")

Operation = Callable[[], Coroutine[Any, Any, T]]
"""What the thread is to do, which may take a while."""

Settle = Callable[[T | None, Exception | None], None]
"""Is called once with what came out, or with what went wrong; later calls change nothing."""

Quick = Callable[[Settle[T]], Callable[[], None] | None]
"""Begins at once, without a task, what settles later, and returns what is called if nobody waits
for that any more; or has done nothing, and returns None."""

FAREWELL: Final = 0.4
"""Seconds for a server to hear that we close; `rpc://` says it 3 times."""

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
class _Call(Generic[T]):
    """What a thread waits for that has the I/O thread do something.

    `concurrent.futures` and asyncio's bridge to them cost more than a message and its confirm.
    """

    __slots__ = ("_give_up", "_over", "_task", "error", "is_over", "operation", "quick", "result")

    def __init__(self, operation: Operation[T], quick: Quick[T] | None) -> None:
        self.operation = operation
        self.quick = quick
        self.is_over = False
        self.result: T | None = None
        self.error: BaseException | None = None
        self._task: asyncio.Task[T] | None = None
        self._give_up: Callable[[], None] | None = None
        self._over = threading.Lock()
        self._over.acquire()

    def wait(self, timeout: float) -> bool:
        """Tell whether it is over, after `timeout` seconds at the latest."""
        return self._over.acquire(timeout=max(0.0, timeout))

    # -- on the thread ------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin, in whichever way is possible."""
        if self.is_over:  # nobody waits for it any more
            return
        try:
            if self.quick is not None:
                self._give_up = self.quick(self.settle)
                if self._give_up is not None:
                    return
        except Exception as exc:  # raised again by the thread that waits
            self.settle(None, exc)
            return
        self._task = asyncio.get_running_loop().create_task(self.operation())
        self._task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        """End it, if it is not over."""
        if self._task is not None:
            self._task.cancel()
        elif not self.is_over:
            if self._give_up is not None:
                self._give_up()
            self.settle(None, asyncio.CancelledError())

    def settle(self, result: T | None, error: BaseException | None) -> None:
        """Let the waiting thread have what came out."""
        if not self.is_over:
            self.result, self.error, self.is_over = result, error, True
            self._over.release()

    def _on_done(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.settle(None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.settle(None, error)
        else:
            self.settle(task.result(), None)


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
        self._calls: list[_Call[Any]] = []
        self._waiting: set[_Call[Any]] = set()
        self._at_close: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.closed = False
        """True from the moment that `close` was called."""

    def run(self, operation: Operation[T], timeout: float, *, quick: Quick[T] | None = None) -> T:
        """Run a coroutine function on the thread, and return or raise what it does.

        It is cancelled when the time is up, or the calling thread is interrupted by an exception.

        Args:
            operation: called on the thread.
            timeout: seconds.
            quick: tried before it, on the thread; if it begins, `operation` is not called.

        Raises:
            NoAnswerError: the time was up.
            ConnectionLostError: `close` was called, before or meanwhile.
        """
        call = _Call(operation, quick)
        try:
            with self._lock:
                self._submit(call)
            # The calling thread keeps the time. A timer in the loop would outlive each operation,
            # as asyncio takes cancelled ones out of its heap by the hundred.
            if not call.wait(timeout):
                self._cancel(call)
                call.wait(_GRACE)  # what it does about its end comes before the next operation
                if not call.is_over or isinstance(call.error, asyncio.CancelledError):
                    raise NoAnswerError(f"no answer within {timeout:g} seconds")
        except BaseException:
            self._cancel(call)  # after an interrupt of this thread it must not go on alone
            raise
        finally:
            self._waiting.discard(call)
        error = call.error
        if error is None:
            return cast("T", call.result)
        if self.closed or isinstance(error, asyncio.CancelledError):  # whatever it says
            raise ConnectionLostError("closed by this process") from error
        raise error

    def soon(self, callback: Callable[[], object]) -> None:
        """Have the thread call something that does not block; never, once `close` was called."""
        with self._lock:
            if not self.closed:
                self._started().call_soon_threadsafe(callback)

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
            asyncio.run_coroutine_threadsafe(self._say_farewell(), loop).result(2 * FAREWELL)
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(2 * FAREWELL)

    def _submit(self, call: _Call[T]) -> None:
        if self.closed:
            raise ConnectionLostError("closed by this process")
        loop = self._started()
        self._waiting.add(call)
        # Whoever finds others waits with them for one wake-up. That is asked for first: Ctrl-C may
        # come in between, and a call that nobody wakes the loop for keeps all later ones.
        if not self._calls:
            loop.call_soon_threadsafe(self._begin)
        self._calls.append(call)

    def _started(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the thread; if that cannot be started, the next call tries again."""
        if self._loop is not None:
            return self._loop
        loop = _Loop()
        thread = threading.Thread(target=self._serve, args=(loop,), name="upshot-amqp", daemon=True)
        try:
            thread.start()
        except Exception:  # this system is out of threads
            loop.close()
            raise
        self._loop, self._thread = loop, thread
        return loop

    def _cancel(self, call: _Call[T]) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call.cancel)

    # -- on the thread ------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call.begin()

    async def _say_farewell(self) -> None:
        await asyncio.gather(*(farewell() for farewell in self._at_close), return_exceptions=True)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
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
            for call in list(self._waiting):
                call.settle(None, ConnectionLostError("closed by this process"))
