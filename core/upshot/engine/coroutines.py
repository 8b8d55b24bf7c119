"""Event loops of a worker's threads: one for each, for all its `async def` tasks.

It lives as long as the thread, so that what one task opened (a pool of connections, say) serves the
next. What a task leaves behind in it runs on beside later tasks, and cannot end them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Final, final

__all__ = ["Interruption", "Loops"]

logger = logging.getLogger("upshot.worker")

_LAST_WORDS: Final = 1.0  # seconds that coroutines left in a loop have to end when it is closed


class Interruption(KeyboardInterrupt):
    """Ctrl-C, where tasks run in the thread that hears of it: it ends the run, and not a task."""


@final
class Loops:
    """The event loops of some threads."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[asyncio.AbstractEventLoop] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on this thread's loop, in a copy of the caller's context."""
        loop = self._loop()
        asyncio.set_event_loop(loop)
        asyncio._set_running_loop(None)  # what a task may have left set, and nothing would run
        task = loop.create_task(coroutine, context=contextvars.copy_context())
        while True:
            try:
                return loop.run_until_complete(task)
            except (KeyboardInterrupt, SystemExit, RuntimeError) as exc:
                # The loop passes on what somebody else's coroutine raises, and may be stopped.
                if task.done():
                    return task.result()
                if loop.is_closed() or isinstance(exc, Interruption):
                    raise
                logger.error("what a task left in the event loop raised %s", type(exc).__name__)

    def close(self) -> None:
        """Cancel what is left in the loops, and close them; waits a second for each at most."""
        with self._lock:
            loops, self._all = self._all, []
        for loop in loops:
            if not (loop.is_closed() or loop.is_running()):
                _close(loop)
        if getattr(self._local, "loop", None) in loops:
            asyncio.set_event_loop(None)  # as after `asyncio.run`: nobody is to find a closed one

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop | None = getattr(self._local, "loop", None)
        if loop is None or loop.is_closed():  # a task can get hold of it, and close it
            loop = self._local.loop = asyncio.new_event_loop()
            with self._lock:
                self._all.append(loop)
        return loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop whose coroutines may refuse to be cancelled, and whose threads may be busy."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    try:
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WORDS))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), _LAST_WORDS))
    except BaseException as exc:  # a coroutine may raise anything, and the process goes on
        logger.error("what a task left in the event loop raised %s", type(exc).__name__)
    finally:
        loop.close()
