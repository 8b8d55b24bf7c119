"""Running what was sent in the thread of the test: nothing goes on beside it, or comes late."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from upshot.app import App
from upshot.broker import QueueStatus
from upshot.checks import check_queues
from upshot.clock import now, sleep
from upshot.context import current_task
from upshot.engine import Consumer, Interruption
from upshot.errors import ConfigError, NotDrainedError, TaskError
from upshot.testing.travelling import Clock

__all__ = ["drain", "run_due"]

_PAUSE: Final = 0.005  # seconds between two looks at tasks that a worker beside the test runs
_DAY: Final = 86_400.0


def run_due(app: App, *, queues: Sequence[str] | None = None) -> None:
    """Run every task that is due now, and what these send, until nothing is due.

    Tasks run one after the other, in the order in which a worker of one thread would take them, by
    the same code; their outcomes are in the handles. What waits for a later moment is left. A task
    that waits for another would wait for ever here: run a worker for it.

    They run in the calling thread; if that runs an event loop, in one beside it, for which the
    loop waits, because `async def` tasks need loops of their own.

    Args:
        app: whose tasks.
        queues: their names; None for all that the app's tasks name.

    Raises:
        ConfigError: a queue's name is none, or a task has called this.
        ServiceError: the app is not in memory, and its service is away.
    """
    names = check_queues(queues) or app.queues()
    _refuse_tasks()
    consumer = Consumer(app.host(), queues=names, threads=1, burst=True)
    if _runs_a_loop():
        _run_aside(consumer)
    else:
        with _interruptible(consumer):
            consumer.run()


def drain(
    app: App,
    clock: Clock | None = None,
    *,
    queues: Sequence[str] | None = None,
    within: float = _DAY,
) -> None:
    """Run every task that was sent, and all that these send, until nothing is left.

    Where all that is left waits for a moment (a countdown, the pause before a repetition), `clock`
    travels there. A worker that runs beside the test is waited for.

    Args:
        app: whose tasks.
        clock: the one in use; None if nothing is expected to wait for a moment.
        queues: their names; None for all that the app's tasks name.
        within: seconds that the clock travels at most, a day: a task that sends itself again and
            again would never come to an end.

    Raises:
        NotDrainedError: messages are left that wait for a moment, and there is no clock; or it
            would have to travel further.
        ConfigError, ServiceError: as for `run_due`.
    """
    names = check_queues(queues) or app.queues()
    left = within
    while True:
        run_due(app, queues=names)
        found = app.broker.call(lambda broker, seconds: broker.survey(names, seconds))
        if any(status.ready or status.leased for status in found.values()):
            sleep(_PAUSE)
            continue
        waiting = [status for status in found.values() if status.delayed]
        if not waiting:
            return
        left -= _travel(clock, waiting, left)


def _travel(clock: Clock | None, waiting: Sequence[QueueStatus], left: float) -> float:
    """Travel to the next moment that a message waits for; return the seconds until there."""
    count = sum(status.delayed for status in waiting)
    messages = "1 message waits" if count == 1 else f"{count} messages wait"
    if clock is None:
        raise NotDrainedError(
            f"{messages} for a later moment; give drain() the clock that is to travel there, or "
            "run what is due now with run_due()"
        )
    etas = [status.next_eta for status in waiting if status.next_eta is not None]
    if not etas:
        raise NotDrainedError(f"{messages}, and this broker does not tell for which moment")
    seconds = max(0.0, min(etas) - now())
    if seconds > left:
        raise NotDrainedError(
            f"{messages} for a moment {seconds:g} seconds away, and drain() travels {left:g} "
            "seconds more; give it a longer within="
        )
    clock.travel(seconds)
    return seconds


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_aside(consumer: Consumer) -> None:
    """Run in a thread of its own, and wait for it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run()
        except BaseException as exc:  # it is the caller's
            failures.append(exc)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="upshot-drain", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:  # Ctrl-C: nobody can end the task that runs, but no other is begun
        consumer.stop()
        raise
    if failures:
        raise failures[0]


@contextmanager
def _interruptible(consumer: Consumer) -> Generator[None]:
    """Let Ctrl-C end the test, and not only the task that it strikes, which may raise anything."""
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before is not signal.default_int_handler:
        yield
        return
    struck = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        struck.set()
        consumer.stop()
        raise Interruption

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if struck.is_set():
        raise KeyboardInterrupt


def _refuse_tasks() -> None:
    try:
        task = current_task()
    except TaskError:
        return
    if not task.is_direct:
        raise ConfigError("a test drains queues; a task that does waits for itself")
