"""Waiting as Celery's callers expect it: for one, for many, with callbacks, or only with them."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

from upshot import forking
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ResultTimeoutError, UpshotError
from upshot.record import Record, printable
from upshot_contrib.celery.driver import CeleryTimeoutError

__all__ = ["Callbacks", "Waits"]

logger = logging.getLogger(__name__)

_SLICE: Final = 1.0  # seconds between two calls of `on_interval`, as on Celery's Redis
_FAILED: Final = frozenset({"FAILURE", "REVOKED"})
_GLANCE: Final = 0.5  # seconds between two looks at what no service tells of

_Meta = dict[str, Any]


class Waits:
    """The waits of one backend.

    Args:
        client: where the records are.
        read: makes a meta of a record.
        elsewhere: looks for a finished task in the backend that the application had before;
            None if there is none.
    """

    def __init__(
        self,
        client: ResultClient,
        *,
        read: Callable[[Record], _Meta],
        elsewhere: Callable[[str], _Meta | None] | None,
    ) -> None:
        self._client = client
        self._read = read
        self._elsewhere = elsewhere

    def many(
        self,
        task_ids: list[str],
        *,
        timeout: float | None = None,
        on_interval: Callable[[], object] | None = None,
        on_message: Callable[[_Meta], object] | None = None,
    ) -> Iterator[tuple[str, _Meta]]:
        """Yield each distinct id once, as its task ends, with its meta.

        Args:
            task_ids: what to wait for.
            timeout: seconds for all; 0 looks once, None waits for ever.
            on_interval: called about every second, and when a task has failed; what it raises
                ends the wait.
            on_message: called with every meta that is seen, also of states that are no end.

        Raises:
            celery.exceptions.TimeoutError: the deadline passed before all had ended.
            UpshotError: a record cannot be read, or was forgotten meanwhile.
        """
        deadline = Deadline(None if timeout is None else max(0.0, timeout))
        waiting = dict.fromkeys(task_ids)
        seen: dict[str, Record] = {}
        is_first = True
        while waiting:
            pause = _GLANCE if on_message or self._elsewhere else _SLICE if on_interval else None
            if is_first and self._elsewhere is not None:
                pause = 0.0  # look here, then there, then wait
            if on_message is not None:
                self._report(waiting, seen, on_message)
            try:
                for task_id, meta in self._slice(waiting, deadline.left(pause), is_first):
                    if on_interval is not None and meta["status"] in _FAILED:
                        on_interval()  # if a parent failed before, its error is to be raised
                    if on_message is not None:
                        on_message(dict(meta))
                    yield task_id, meta
            except ResultTimeoutError as exc:
                yield from self._from_elsewhere(waiting)
                if on_interval is not None:
                    on_interval()
                if waiting and deadline.expired:
                    raise CeleryTimeoutError(f"The operation timed out: {exc}") from exc
            is_first = False

    def _slice(
        self,
        waiting: dict[str, None],
        seconds: float | None,
        is_first: bool,
    ) -> Iterator[tuple[str, _Meta]]:
        """Wait for a part of the time; take off `waiting` what has ended."""
        ids = list(waiting)
        with closing(self._client.wait_many(ids, timeout=seconds, look=is_first)) as ended:
            for task_id, found in ended:
                if isinstance(found, UpshotError):
                    raise found
                del waiting[task_id]
                yield task_id, self._read(found)

    def ready(self, task_ids: list[str]) -> Iterator[tuple[str, _Meta]]:
        """Look once, and yield those whose tasks have ended."""
        waiting = dict.fromkeys(task_ids)
        for task_id, found in zip(waiting, self._client.load_many(list(waiting)), strict=True):
            if isinstance(found, UpshotError):
                raise found
            if found is not None and found.is_terminal:
                yield task_id, self._read(found)
            elif (
                found is None and self._elsewhere is not None and (meta := self._elsewhere(task_id))
            ):
                yield task_id, meta

    def _from_elsewhere(self, waiting: dict[str, None]) -> Iterator[tuple[str, _Meta]]:
        if self._elsewhere is None:
            return
        for task_id in list(waiting):
            if meta := self._elsewhere(task_id):
                del waiting[task_id]
                yield task_id, meta

    def _report(
        self,
        waiting: dict[str, None],
        seen: dict[str, Record],
        on_message: Callable[[_Meta], object],
    ) -> None:
        """Tell of the states that are no end and were not seen before."""
        ids = list(waiting)
        for task_id, found in zip(ids, self._client.load_many(ids), strict=True):
            if isinstance(found, Record) and not found.is_terminal and found != seen.get(task_id):
                seen[task_id] = found
                on_message(self._read(found))


class Callbacks:
    """Fulfils results when their tasks end, for those that somebody gave a callback.

    Celery's own backends do so only while some thread waits for a result. Here the client tells of
    each end, on a thread that is for callbacks alone.

    Args:
        client: where the records are.
        read: makes a meta of a record.
    """

    def __init__(self, client: ResultClient, *, read: Callable[[Record], _Meta]) -> None:
        self._client = client
        self._read = read
        self._lock = threading.Lock()
        self._results: dict[str, dict[int, Callable[[], Any]]] = {}
        forking.register(self)

    def add(self, result: Any, *, weak: bool) -> None:
        """Fulfil `result` when its task ends; keep it alive until then unless `weak`."""
        task_id: str = result.id
        with self._lock:
            is_new = task_id not in self._results
            refer = weakref.ref(result) if weak else lambda: result
            self._results.setdefault(task_id, {})[id(result)] = refer
        if is_new:
            self._client.when_ended(task_id, lambda found: self._ended(task_id, found))

    def drop(self, result: Any) -> None:
        """Leave `result` alone from now on.

        The finaliser of a result comes here, in any thread and at any moment: no lock, no I/O.
        """
        self._results.get(result.id, {}).pop(id(result), None)

    def _ended(self, task_id: str, found: Record | UpshotError) -> None:
        with self._lock:
            waiting = self._results.pop(task_id, {})
        if isinstance(found, UpshotError):  # forgotten, or closed: there is nothing to tell
            return
        for refer in list(waiting.values()):
            result = refer()
            if result is not None:
                self._fulfil(result, found)

    def _fulfil(self, result: Any, record: Record) -> None:
        try:
            result._maybe_set_cache(self._read(record))
        except Exception:  # a callback of the application's: the others' turn comes
            logger.exception("a callback of task %s raised", printable(record.task_id))

    def after_fork(self) -> None:
        """Forget what the parent waits for."""
        self._lock = threading.Lock()
        self._results = {}
