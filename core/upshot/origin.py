"""What a result handle needs of the app that made it.

A handle pickles as its id and the masked address of its origin. In the process that unpickles it,
the origin is found again among those open there; nothing is opened because a handle arrived.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

from upshot import clock, forking
from upshot.client import ResultClient
from upshot.envelope import unfinished
from upshot.errors import (
    ConfigError,
    ResultTimeoutError,
    UnsupportedError,
    UpshotError,
)
from upshot.observing import Observer, Reading, Watch
from upshot.record import Record, printable
from upshot.serializers import Codecs
from upshot.states import State

__all__ = ["Origin", "restore"]

logger = logging.getLogger(__name__)


def _no_annotation(name: str) -> object:
    return None


def _unknown(queue: str) -> str | None:
    return None


@final
class Origin:
    """The app's side of every handle it makes.

    Args:
        client: the open result backend.
        codecs: the serializers that outcomes are read with.
        annotation: the return annotation of a registered task, by name; None if unknown.
        missing_worker: says in a sentence that no worker serves a queue, or None if one does or
            nobody knows.
        patience: seconds that a `get()` waits before it asks `missing_worker`; None never asks.
        observers: who looks on.
    """

    def __init__(
        self,
        client: ResultClient,
        codecs: Codecs,
        *,
        annotation: Callable[[str], object] = _no_annotation,
        missing_worker: Callable[[str], str | None] = _unknown,
        patience: float | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.client = client
        self.codecs = codecs
        self.annotation = annotation
        self.patience = patience
        self.observers = observers
        self.handles: weakref.WeakSet[Any] = weakref.WeakSet()
        """Live `AsyncResult`s that were neither read nor forgotten."""
        self._missing_worker = missing_worker
        self._warned: set[str] = set()
        self.is_inherited = False
        """Whether this process is a fork of the one that opened the results."""
        forking.register(self)
        _ORIGINS[(*self.address, id(self))] = self

    @property
    def address(self) -> tuple[str, str]:
        """The masked URL and the namespace: how an unpickled handle finds its way back."""
        return str(self.client.url), self.client.namespace

    def after_fork(self) -> None:
        """Note that the results were opened by another process."""
        self.is_inherited = True

    def require_here(self, task_ids: Iterable[str]) -> None:
        """Refuse handles of results that can only come to another process.

        Raises:
            UnsupportedError: the backend carries results to the process that submitted the task,
                and this one did not submit it.
        """
        if not self.client.backend.reply_to:
            return
        ids = list(task_ids)
        for task_id, found in zip(ids, self.client.load_many(ids), strict=True):
            if found is None:
                raise UnsupportedError(
                    f"{self.client.url} sends results to the process that submitted the task, and "
                    f"task {printable(task_id)!r} was not submitted by this one, or was forgotten: "
                    "read it there, or choose a backend that stores results, such as redis://"
                )

    def revoke(self, task_id: str) -> bool:
        """Store REVOKED, keeping what the record says about the task; False if it has ended."""
        known = self.client.load(task_id)
        revoked = Record(
            task_id=task_id,
            state=State.REVOKED,
            attempt=known.attempt if known else 1,
            name=known.name if known else "",
            queue=known.queue if known else "",
            worker=known.worker if known else "",
            queued_at=known.queued_at if known else None,
            started_at=known.started_at if known else None,
            finished_at=clock.now(),
            info=known.info if known else None,
        )
        return self.client.store(
            revoked,
            expires=unfinished(self.client.expires),
            reply_to=self.client.backend.reply_to,
        )

    def wait(self, task_id: str, queue: str, timeout: float | None) -> Record:
        """Wait for the end of a task, as `AsyncResult.get` does."""
        if not self.observers:
            return self._wait(task_id, queue, timeout)
        reading = Reading((task_id,), queue)
        with self.watch(reading):
            record = self._wait(task_id, queue, timeout)
            reading.records = (record,)
        return record

    def watch(self, reading: Reading) -> Watch:
        """Return what surrounds a wait that observers see."""
        return Watch(self.observers, lambda each: each.reading(reading))

    def _wait(self, task_id: str, queue: str, timeout: float | None) -> Record:
        deadline, patience = clock.Deadline(timeout), self.patience
        is_long = patience is not None and (timeout is None or timeout > patience)
        if is_long:
            try:
                return self.client.wait(task_id, timeout=patience)
            except ResultTimeoutError as exc:
                if exc.__cause__ is None:
                    self.warn_if_no_worker([task_id], queue)
        try:
            return self.client.wait(task_id, timeout=deadline.left(), look=not is_long)
        except ResultTimeoutError as exc:
            trouble = exc.__cause__
            raise self.explain_timeout(task_id, timeout, trouble) from trouble

    async def wait_async(self, task_id: str, queue: str, timeout: float | None) -> Record:
        """Wait like `wait`, without blocking the event loop."""
        if not self.observers:
            return await self._wait_async(task_id, queue, timeout)
        reading = Reading((task_id,), queue)
        with self.watch(reading):
            record = await self._wait_async(task_id, queue, timeout)
            reading.records = (record,)
        return record

    async def _wait_async(self, task_id: str, queue: str, timeout: float | None) -> Record:
        deadline = clock.Deadline(timeout)
        if self.patience is not None and (timeout is None or timeout > self.patience):
            try:
                return await self.client.end_of(task_id, timeout=self.patience)
            except ResultTimeoutError as exc:
                if exc.__cause__ is None:
                    await asyncio.to_thread(self.warn_if_no_worker, [task_id], queue)
        try:
            return await self.client.end_of(task_id, timeout=deadline.left())
        except ResultTimeoutError as exc:
            trouble = exc.__cause__
            error = await asyncio.to_thread(self.explain_timeout, task_id, timeout, trouble)
            raise error from trouble

    def warn_if_no_worker(self, task_ids: Iterable[str], queue: str) -> None:
        """Log once per queue that nobody serves it, if the first of `task_ids` waits in it.

        Each service is asked once and briefly: a wait that asks must not end late for it. Whoever
        knows that the results cannot be read does not ask.
        """
        try:
            record = self.client.load(next(iter(task_ids)), deadline=clock.Deadline(0))
            if record is not None and record.state != State.QUEUED:
                return
            queue = (record.queue if record else "") or queue
            if queue and queue not in self._warned:
                sentence = self._missing_worker(queue)
                if sentence is not None:
                    self._warned.add(queue)
                    logger.warning("%s", sentence)
        except UpshotError as exc:
            logger.debug("could not look for workers: %s", exc)

    def explain_timeout(
        self, task_id: str, timeout: float | None, trouble: BaseException | None
    ) -> ResultTimeoutError:
        """Return the error of a wait that ended too early: with the state and its age.

        The service is asked once and briefly: the wait is over, whether it answers or not.

        Args:
            task_id: whose end was awaited.
            timeout: the seconds that were waited.
            trouble: why the service could not be read during the wait: it is not asked again.
                None if it could.
        """
        record: Record | None = None
        if trouble is None:
            try:
                record = self.client.load(task_id, deadline=clock.Deadline(0))
            except UpshotError as exc:
                trouble = exc
        if trouble is not None:
            return ResultTimeoutError(
                f"task {printable(task_id)!r} did not end within {timeout} seconds, "
                f"and its state cannot be read: {trouble}"
            )
        state, since = State.PENDING.value, None
        if record is not None:
            state, since = record.state, record.started_at or record.queued_at
        age = "" if since is None else f" for {max(0.0, clock.now() - since):.1f} seconds"
        return ResultTimeoutError(
            f"task {printable(task_id)!r} did not end within {timeout} seconds; "
            f"it is {printable(state)}{age}. Waiting again is fine"
        )


_ORIGINS: Final[weakref.WeakValueDictionary[tuple[str, str, int], Origin]] = (
    weakref.WeakValueDictionary()
)
"""By address and, because two apps may have opened one, by identity."""


def restore(address: str, namespace: str) -> Origin:
    """Return the open origin with that masked URL and namespace.

    Raises:
        ConfigError: none is open in this process.
    """
    for origin in list(_ORIGINS.values()):
        if origin.address == (address, namespace):
            return origin
    raise ConfigError(
        f"this handle came from another process, and no app here has opened the results at "
        f"{address} (namespace {namespace!r}); make the app, then use app.AsyncResult(id), "
        "which works here if these results are stored, and not carried to who submitted"
    )
