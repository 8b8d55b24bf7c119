"""How waiters hear of results where Celery's backend is told of them: by its own consumer.

What is done for a key is what `AsyncResult.then()` and `AsyncResult.get()` do. That includes what
is done at the end of a wait that was given up: nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_over_celery.adapter import body_of

__all__ = ["CeleryListener"]

_SLICE: Final = 0.02
"""Seconds for which the consumer is asked to look, so that an interruption is soon noticed."""

_PAUSE: Final = 0.001
"""Seconds between two looks, in which other threads have their turn."""

_Turn = Callable[[], contextlib.AbstractContextManager[Any]]


class CeleryListener(Listener):
    """Celery's result consumer under upshot's wait hub.

    Args:
        app: the Celery app.
        backend: its backend.
        stop: ends what the backend's consumer does.
        turn: what is entered around each use of the backend.
        kept: where handles are kept by those who gave a wait up, to ask or to wait with them
            again: where a result comes once, another handle would not get it. None: nobody does.
    """

    def __init__(
        self,
        app: Any,
        backend: Any,
        stop: Callable[[Any], object],
        turn: _Turn = contextlib.nullcontext,
        *,
        kept: dict[str, Any] | None = None,
    ) -> None:
        self._app = app
        self._backend = backend
        self._stop = stop
        self._turn = turn
        self._keeps = kept is not None
        self._awaited: dict[str, Any] = {} if kept is None else kept
        self._heard: deque[Hint] = deque()
        self._interrupted = threading.Event()

    def subscribe(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._turn():
                if key not in self._awaited:
                    self._awaited[key] = self._app.AsyncResult(key, backend=self._backend)
                self._awaited[key].then(self._hear)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        """Let go of the handles, as a caller of `get()` does who will not call it again."""
        for key in keys:
            with self._turn():
                result = self._awaited.get(key)
                if result is not None and (result.on_ready.ready or not self._keeps):
                    del self._awaited[key]

    def wait(self, timeout: float) -> Sequence[Hint]:
        deadline = clock.Deadline(timeout)
        while not (self._heard or self._interrupted.is_set() or deadline.expired):
            with self._turn(), contextlib.suppress(TimeoutError):
                self._backend.result_consumer.drain_events(timeout=_SLICE)
            self._interrupted.wait(_PAUSE)
        self._interrupted.clear()
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        """Stop the consumer, which an application does by ending."""
        with self._turn():
            with contextlib.suppress(Exception):  # of what was never started, or has no service
                self._stop(self._backend.result_consumer)
            if not self._keeps:
                self._awaited.clear()

    def _hear(self, result: Any) -> None:
        """Take a result that has come, on whichever thread drained it."""
        self._heard.append(
            Hint(result.id, body_of({"status": result.state, "result": result.result}))
        )
