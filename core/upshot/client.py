"""What users get of a backend: everything that is the same on every service, written once.

A `ResultClient` adds to an author's `Backend`: ids and namespaces, encoding and limits, error
translation, retries, deadlines, waiting for one or many, asyncio, safety across threads and forks.
It is not meant to be subclassed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import final

from upshot import clock, forking, retrying, storing
from upshot.backend import Backend, Capabilities, StoredRecord, Sweeping
from upshot.claims import Claims
from upshot.clock import Deadline
from upshot.envelope import AS_SET, Envelopes
from upshot.errors import ServiceClosedError, ServiceUnavailableError, UnsupportedError, UpshotError
from upshot.keys import Keyspace
from upshot.reading import BATCH, Reader, Seen, is_short
from upshot.record import Record
from upshot.sealing import Sealing
from upshot.service import OpenService
from upshot.url import Url
from upshot.waiters import CallbackSink, LoopSink, ThreadSink, timed_out
from upshot.waiting import Hub

__all__ = ["ResultClient"]


@final
class ResultClient:
    """One open result backend, as users see it; usable from any thread and after a fork.

    Args:
        make: makes the backend; does no I/O.
        url: where it is.
        namespace: what separates this application's records from others on the same service; 1
            to 64 characters. No namespace sees into another.
        expires: seconds that a record is kept after it was last written; None for ever.
        timeout: seconds that one operation may take, its retries included.
        max_bytes: longest record that is read; longer ones are refused before decoding.
        sealing: what compresses, signs and encrypts records; None for nothing.
    """

    def __init__(
        self,
        make: Callable[[], Backend],
        *,
        url: Url,
        namespace: str = "upshot",
        expires: float | None = 86_400.0,
        timeout: float = 5.0,
        max_bytes: int = 64 * 2**20,
        sealing: Sealing | None = None,
    ) -> None:
        self.url = url
        self.namespace = namespace
        self.expires = expires
        self._service = OpenService(make, url=url, timeout=timeout)
        backend = self._service.current
        self._driver_errors = backend.driver_errors
        declared = backend.capabilities
        self.keys = Keyspace(namespace, max_bytes=declared.max_key_bytes, text=declared.text_keys)
        self.envelopes = Envelopes(
            self.keys, url=url, expires=expires, max_bytes=max_bytes, sealing=sealing
        )
        self.reader = Reader(self._service, self.envelopes, backend.driver_errors)
        self._lock = threading.Lock()
        self._hub: Hub[Record] | None = None
        self._callbacks: CallbackSink[Record] | None = None
        self._closed = False
        self.newest = ""
        """The id that this process sent last; "" if none. A hint: what it says may be outdated."""
        forking.register(self)

    def __repr__(self) -> str:
        return f"<ResultClient {self.url} namespace={self.namespace!r}>"

    def __enter__(self) -> ResultClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> Backend:
        """The author's object, for those who need to look below."""
        return self._service.current

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do; may be narrower after the first connection."""
        return self.backend.capabilities

    @property
    def claims(self) -> Claims:
        """Who holds which idempotency key in this namespace."""
        return Claims(self._service, self.keys, self.reader, self.envelopes)

    # -- store, load, forget ----------------------------------------------------------------

    def encode(
        self, record: Record, *, expires: float | None = AS_SET, reply_to: str = ""
    ) -> StoredRecord:
        """Return `record` in the form that the backend stores.

        Args:
            record: what to store.
            expires: seconds to keep it; None for ever; AS_SET as this client is set.
            reply_to: for backends that carry results: where to.

        Raises:
            InvalidTaskIdError, PayloadTooLargeError, ConfigError, UnsupportedError: as
                `Envelopes.seal` says.
        """
        return self.envelopes.seal(record, self.capabilities, expires=expires, reply_to=reply_to)

    def store(self, record: Record, *, expires: float | None = AS_SET, reply_to: str = "") -> bool:
        """Store one record; see `store_many`."""
        return self.store_encoded([self.encode(record, expires=expires, reply_to=reply_to)])[0]

    def store_many(
        self, records: Iterable[Record], *, expires: float | None = AS_SET
    ) -> list[bool]:
        """Store records in order and tell for each whether it was applied.

        A record applies unless what is stored is terminal or further on in the task's life. When
        this returns, the applied ones are as safe as the service makes them; when it raises, any
        of them may have been stored, and storing them again is harmless.

        Raises:
            InvalidTaskIdError, PayloadTooLargeError, UnsupportedError: before any I/O.
            ServiceError: the service could not do it within the client's timeout.
        """
        return self.store_encoded([self.encode(record, expires=expires) for record in records])

    def store_encoded(self, records: Sequence[StoredRecord]) -> list[bool]:
        """Store what `encode` returned; otherwise like `store_many`."""
        return storing.store(self._service, self.reader, records)

    def load(self, task_id: str, *, deadline: Deadline | None = None) -> Record | None:
        """Return the record of one task, or None if there is none or it has expired.

        Raises:
            InvalidTaskIdError: before any I/O.
            CorruptRecordError: what is stored is not a record.
            PayloadTooLargeError: it is longer than `max_bytes`.
            ServiceError: the service could not answer in time.
        """
        found = self.reader.record(self.keys.key(task_id), deadline)
        if isinstance(found, UpshotError):
            raise found
        return found

    def load_many(self, task_ids: Iterable[str]) -> list[Record | UpshotError | None]:
        """Return per requested id, in order and with repetitions, its record or None.

        An id whose stored bytes cannot be read gets its error in its place: the others are not
        affected.
        """
        return self.reader.records([self.keys.key(task_id) for task_id in task_ids])

    def forget(self, task_ids: Iterable[str], *, plain: bool = False) -> None:
        """Remove the records and all that belongs to them; unknown ids are fine.

        This process's own waits for them end at once, with ResultForgottenError. `plain` saves the
        look for items of who knows that none of these tasks streams.
        """
        ids = list(task_ids)
        keys = [self.keys.key(task_id) for task_id in ids]
        self.reader.delete(keys)  # before their items: a worker that finds it gone adds none
        if not plain and self.capabilities.streams:
            self.reader.delete_items(self.keys, ids)
        if self._hub is not None:
            self._hub.forget(keys)
        self.envelopes.forget(ids)

    def scan(self, unreadable: Callable[[UpshotError], object] | None = None) -> Iterator[Record]:
        """Yield every readable record of this namespace, in no order; only its keys are held.

        `unreadable` is told why one cannot be read; None passes over such records in silence.

        Raises:
            UnsupportedError: at once, if the backend cannot enumerate.
        """
        if not self.capabilities.scan:
            raise UnsupportedError(f"{self.url} cannot enumerate its records")
        return self.reader.scan(self.keys.prefixes, unreadable)

    def prune(self) -> int:
        """Remove what has expired and the service keeps, or `result_offload`; return how many."""
        backend, removed, batch = self.backend, self.envelopes.prune(), BATCH
        while isinstance(backend, Sweeping) and batch == BATCH:
            batch = self._service.call(lambda _, seconds: backend.sweep(BATCH, seconds))
            removed += batch
        return removed

    # -- waiting ------------------------------------------------------------------------------

    def wait(self, task_id: str, *, timeout: float | None = None, look: bool = True) -> Record:
        """Block until the task has ended and return its terminal record.

        Args:
            task_id: which task.
            timeout: seconds; 0 looks once, None waits for ever.
            look: False for who goes on with a wait: what a service refuses at the beginning is
                an error, what it refuses later ends no wait. With less than `MIN_LOOK` left it
                looks all the same: what has ended meanwhile is not to be missed.

        Raises:
            ResultTimeoutError: it did not end in time; nothing was consumed.
            ResultForgottenError: it was forgotten meanwhile, where the backend can tell.
            ServiceClosedError: the client was closed meanwhile.
        """
        deadline, key = Deadline(timeout), self.keys.key(task_id)
        is_new = look and task_id == self.newest  # hardly ended: one look, once subscribed, will do
        found, trouble = self._attend(key, deadline) if is_new else (None, None)
        is_away = isinstance(trouble, ServiceUnavailableError)
        if found is None and (look or is_short(deadline)) and not is_away:
            found, trouble = self.reader.end_of(key, deadline)
        if found is None and trouble is None and not is_new:
            found, trouble = self._attend(key, deadline)
        if found is None:
            waits = self._wait({key: task_id}, deadline, timeout, trouble)
            with contextlib.closing(waits) as ended:
                _, found = next(ended)
        if isinstance(found, UpshotError):
            raise found
        return found

    def wait_many(
        self, task_ids: Iterable[str], *, timeout: float | None = None, look: bool = True
    ) -> Generator[tuple[str, Record | UpshotError]]:
        """Yield each distinct id once, as its task ends, with its terminal record or its error.

        One connection and one thread serve any number of ids. Leaving the loop early, and closing
        the generator, releases everything.

        Raises:
            ResultTimeoutError: the deadline passed before all had ended.
        """
        deadline = Deadline(timeout)
        keys = {self.keys.key(task_id): task_id for task_id in task_ids}
        looks = look or is_short(deadline)
        ended, trouble = self.reader.ended(list(keys), deadline) if looks else ({}, None)
        for key, found in ended.items():
            yield keys.pop(key), found
        yield from self._wait(keys, deadline, timeout, trouble)

    def _attend(self, key: str, deadline: Deadline) -> Seen:
        """Wait for one key without the hub's thread, if it has opened what that takes."""
        hub, self.newest = self._hub, ""
        if hub is None or is_short(deadline):
            return None, None
        look = partial(self.reader.glance, key, deadline)
        return hub.attend(key, deadline, look), hub.troubles.current

    def _wait(
        self,
        waiting: dict[str, str],
        deadline: Deadline,
        timeout: float | None,
        trouble: UpshotError | None,
    ) -> Generator[tuple[str, Record | UpshotError]]:
        """Yield each key that ends, without looking at first; forget it in `waiting`."""
        if waiting and not deadline.expired:
            hub, sink, began = self.waiting_hub(), ThreadSink[Record](), clock.monotonic()
            try:  # around `watch`, too: Ctrl-C may come just before it returns
                hub.watch(waiting, sink)
                for key, found in sink.collect(len(waiting), deadline):
                    yield waiting.pop(key), found
            finally:
                trouble = hub.troubles.since(began, trouble)
                hub.unwatch(waiting, sink)
        if waiting:
            raise timed_out(list(waiting.values()), timeout, trouble) from trouble

    async def wait_async(
        self, task_ids: Iterable[str], *, timeout: float | None = None
    ) -> AsyncGenerator[tuple[str, Record | UpshotError]]:
        """Like `wait_many`, for coroutines: nothing here blocks the event loop.

        Cancelling the coroutine, or leaving the loop early, releases everything.
        """
        deadline = Deadline(timeout)
        waiting = {self.keys.key(task_id): task_id for task_id in task_ids}
        trouble: UpshotError | None = None
        if deadline.expired:  # look once, and let the loop run meanwhile
            ended, trouble = await asyncio.to_thread(self.reader.ended, list(waiting), deadline)
            for key, found in ended.items():
                yield waiting.pop(key), found
        elif waiting:
            hub, sink = self.waiting_hub(), LoopSink[Record]()
            try:
                hub.watch(waiting, sink)
                while waiting and (batch := await sink.batch(deadline)):
                    for key, found in batch:
                        yield waiting.pop(key), found
            finally:
                trouble = hub.troubles.current
                hub.unwatch(waiting, sink)
        if waiting:
            raise timed_out(list(waiting.values()), timeout, trouble) from trouble

    async def end_of(self, task_id: str, *, timeout: float | None = None) -> Record:
        """Like `wait`, for coroutines.

        One that is destroyed with its loop releases everything, too: a coroutine is closed then, an
        asynchronous generator is not.
        """
        deadline = Deadline(timeout)
        if deadline.expired:
            return await asyncio.to_thread(self.wait, task_id, timeout=0)
        key, hub, sink = self.keys.key(task_id), self.waiting_hub(), LoopSink[Record]()
        try:
            hub.watch([key], sink)
            batch = await sink.batch(deadline)
        finally:
            trouble = hub.troubles.current
            hub.unwatch([key], sink)
        if batch is None:
            raise timed_out([task_id], timeout, trouble) from trouble
        found = batch[0][1]
        if isinstance(found, UpshotError):
            raise found
        return found

    def when_ended(self, task_id: str, callback: Callable[[Record | UpshotError], object]) -> None:
        """Call `callback` once with the terminal record, or the error that ends the wait.

        Callbacks run one after the other on one thread, which is theirs alone: one that waits for
        another result delays only the callbacks after it. What they raise is logged.
        """
        hub = self.waiting_hub()
        with self._lock:
            if self._callbacks is None:
                self._callbacks = CallbackSink[Record](f"upshot-callbacks-{self.url.scheme}")
            sink = self._callbacks
        key = self.keys.key(task_id)
        if sink.add(key, callback):
            try:
                hub.watch([key], sink)
            except BaseException:
                sink.withdraw(key, callback)
                raise

    # -- closing and inspecting ---------------------------------------------------------------

    def close(self) -> None:
        """End waits with ServiceClosedError and free sockets, threads, descriptors; idempotent."""
        with self._lock:
            self._closed = True
            hub, callbacks = self._hub, self._callbacks
        self._service.stop()
        if hub is not None:
            hub.close()
        if callbacks is not None:
            callbacks.close()
        self._service.close()

    def stats(self) -> dict[str, int]:
        """Return what this client holds: awaited `keys`, `waiters`, `threads`, `listeners`."""
        hub = self._hub
        return hub.stats() if hub else {"keys": 0, "waiters": 0, "threads": 0, "listeners": 0}

    # -- below the surface --------------------------------------------------------------------

    def waiting_hub(self) -> Hub[Record]:
        """Return what watches keys for this process, made now if need be."""
        with self._lock:
            if self._closed:
                raise ServiceClosedError(f"{self.url} was closed by this process")
            if self._hub is None:
                self._hub = Hub(
                    load=self.reader.reachable,
                    decode=self.envelopes.open,
                    is_ended=lambda record: record.is_terminal,
                    listen=lambda: self._service.call(lambda b, seconds: b.listen(seconds)),
                    explain=partial(retrying.translate, errors=self._driver_errors, url=self.url),
                    poll_interval=self.capabilities.poll_interval,
                    name=f"upshot-hub-{self.url.scheme}",
                )
            return self._hub

    def after_fork(self) -> None:
        """Abandon the parent's hub: its thread does not exist in this process."""
        self._lock = threading.Lock()
        forking.abandon(self._hub)
        forking.abandon(self._callbacks)
        self._hub = self._callbacks = None
