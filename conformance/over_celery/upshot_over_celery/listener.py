"""How waiters hear of results where Celery's backend is told of them: by its own consumer.

What is done for a key is what `AsyncResult.get()` does. That includes what it does at the end of a
wait that was given up: nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_over_celery.adapter import body_of

__all__ = ["CeleryListener"]

_SLICE: Final = 0.02
"""Seconds for which the consumer is asked to look, so that an interruption is soon noticed."""

_Turn = Callable[[], contextlib.AbstractContextManager[Any]]


class CeleryListener(Listener):
    """Celery's result consumer under upshot's wait hub.

    Args:
        app: the Celery app.
        backend: its backend, for this thread alone.
        turn: what is entered around each use of the backend.
    """

    def __init__(self, app: Any, backend: Any, turn: _Turn = contextlib.nullcontext) -> None:
        self._app = app
        self._backend = backend
        self._turn = turn
        self._awaited: dict[str, Any] = {}
        self._heard: deque[Hint] = deque()
        self._interrupted = threading.Event()

    def subscribe(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._listening():
                result = self._app.AsyncResult(key)
                self._awaited[key] = self._backend.add_pending_result(result)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Let go of the handles, as a caller of `get()` does after a timeout."""
        for key in keys:
            self._awaited.pop(key, None)

    def wait(self, timeout: float) -> Sequence[Hint]:
        deadline = clock.Deadline(timeout)
        while not (self._heard or self._interrupted.is_set() or deadline.expired):
            with self._listening(), contextlib.suppress(TimeoutError):
                self._backend.result_consumer.drain_events(timeout=_SLICE)
        self._interrupted.clear()
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        """Stop the consumer: the one thing in this adapter that an application seldom calls."""
        self._awaited.clear()
        with self._turn(), contextlib.suppress(Exception):  # of what was never started
            self._backend.result_consumer.stop()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear of every message, as `get(on_message=…)` does."""
        consumer = self._backend.result_consumer
        with self._turn():
            before, consumer.on_message = consumer.on_message, self._hear
            try:
                yield
            finally:
                consumer.on_message = before

    def _hear(self, meta: dict[str, Any]) -> None:
        body = body_of(self._backend.meta_from_decoded(dict(meta)))
        self._heard.append(Hint(meta["task_id"], body))
