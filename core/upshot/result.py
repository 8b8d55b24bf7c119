"""The handle of one result. Rebuilt from an id alone, in any process, by `app.AsyncResult(id)`."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Generator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final

from upshot import clock
from upshot.clock import Deadline
from upshot.content_types import offloaded_of
from upshot.errors import TaskRevokedError, UpshotError
from upshot.items import is_plain
from upshot.origin import Origin, restore
from upshot.outcome import decode_failure, decode_value, failure_traceback
from upshot.record import Record, check_task_id, printable
from upshot.states import State

if TYPE_CHECKING:
    from upshot.streaming import Stream
    from upshot.updates import Updates

__all__ = ["AsyncResult"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

_SUCCESS: Final = State.SUCCESS.value  # an attribute of an Enum is slow to get


@final
class AsyncResult(Generic[T]):
    """The result of one task, now or later.

    Every question is answered by the backend at the moment it is asked, so two handles of one id
    never disagree. `get()` may be called any number of times. A result uses resources until it is
    released: `forget()` deletes the record, and `with handle:` does so on leaving.

    Args:
        task_id: which task.
        origin: the app's side of the handle.
        queue: where the task was sent, "" if unknown; used in hints only.
        record: a terminal record that was read already: the handle then asks nobody.
    """

    __slots__ = (
        "__weakref__",
        "_is_tracked",
        "_named_origin",
        "_record",
        "_released",
        "id",
        "is_plain",
        "is_repeat",
        "queue",
    )

    def __init__(
        self, task_id: str, origin: Origin, *, queue: str = "", record: Record | None = None
    ) -> None:
        self.id = check_task_id(task_id)
        self._named_origin: Origin | tuple[str, str] = origin
        self.queue = queue
        self.is_repeat = False
        """Whether the call that returned this handle found its `key` taken by an earlier one."""
        self._record = record
        self._released = True
        self._is_tracked = False
        self.is_plain = False  # whether it is known that there are no items to forget

    def __repr__(self) -> str:
        return f"<AsyncResult {printable(self.id)!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and (self.id, self._where) == (other.id, other._where)

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.id, *self._where, self.queue)

    def __enter__(self) -> AsyncResult[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def __del__(self) -> None:
        # No I/O and no lock here: finalisers run anywhere, also while the interpreter exits.
        if not getattr(self, "_released", True):
            warnings.warn(
                f"the result of task {printable(self.id)!r} was neither read nor forgotten",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    @property
    def origin(self) -> Origin:
        """The app's side of the handle.

        Raises:
            ConfigError: the handle was unpickled in a process that has not opened its backend.
            UnsupportedError: it was unpickled, or inherited by a fork, where its result cannot be
                read.
        """
        named = self._named_origin
        if type(named) is Origin:
            if named.is_inherited and self._record is None:
                named.require_here([self.id])
            return named
        origin = restore(*named)
        origin.require_here([self.id])
        self._named_origin = origin
        return origin

    @property
    def _where(self) -> tuple[str, str]:
        named = self._named_origin
        return named.address if isinstance(named, Origin) else named

    # -- looking, without waiting ---------------------------------------------------------------

    @property
    def state(self) -> str:
        """The state now; `PENDING` if there is no record. Compares equal to `upshot.State`."""
        record = self._look()
        return State.PENDING if record is None else record.state

    status = state
    """Another name of `state`."""

    def ready(self) -> bool:
        """Tell whether the task has ended, in whatever way."""
        record = self._look()
        return record is not None and record.is_terminal

    def successful(self) -> bool:
        """Tell whether the task has ended with a value."""
        return self.state == State.SUCCESS

    def failed(self) -> bool:
        """Tell whether the task has ended with an exception."""
        return self.state == State.FAILURE

    @property
    def result(self) -> T | Exception | None:
        """The value, or the exception if the task failed, or None if it has not ended.

        None is a value too: `successful()` tells the difference.
        """
        record = self._look()
        return None if record is None or not record.is_terminal else self._outcome(record)

    @property
    def traceback(self) -> str | None:
        """The remote traceback of the failure, or of the last attempt; None if there is none."""
        record = self._look()
        if record is None or record.outcome is None or record.state == State.SUCCESS:
            return None
        return failure_traceback(self.origin.codecs, record.outcome)

    @property
    def info(self) -> dict[str, Any] | None:
        """What the task said last by `progress()`, None if nothing; it outlives the task's end."""
        record = self._look()
        if record is None or record.info is None:
            return None
        return cast("dict[str, Any]", decode_value(self.origin.codecs, record.info))

    @property
    def queued_at(self) -> datetime | None:
        """When the task was sent, aware UTC; None if unknown."""
        record = self._look()
        return clock.to_datetime(record.queued_at if record else None)

    @property
    def started_at(self) -> datetime | None:
        """When the last attempt began, aware UTC; None if none has."""
        record = self._look()
        return clock.to_datetime(record.started_at if record else None)

    @property
    def finished_at(self) -> datetime | None:
        """When the task ended, aware UTC; None if it has not."""
        record = self._look()
        return clock.to_datetime(record.finished_at if record else None)

    @property
    def attempts(self) -> int:
        """How often the task was begun, retries and redeliveries included; 0 before the first."""
        record = self._look()
        return 0 if record is None or record.started_at is None else record.attempt

    @property
    def worker(self) -> str | None:
        """The worker that ran or runs the last attempt; None before the first."""
        return getattr(self._look(), "worker", None) or None

    @property
    def name(self) -> str | None:
        """The task's registered name; None if there is no record."""
        return getattr(self._look(), "name", None) or None

    # -- waiting ----------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, propagate: bool = True) -> T:
        """Wait for the task to end and return its value.

        It can be called any number of times, from any thread, and returns an equal value each
        time. With a running event loop, use `await handle` instead: this call blocks.

        Args:
            timeout: seconds; 0 looks once, None waits for ever.
            propagate: False returns the exception of a failed task instead of raising it.

        Raises:
            ResultTimeoutError: the task did not end in time; nothing was consumed.
            TaskRevokedError: it was revoked.
            ResultForgottenError: it was forgotten meanwhile, where the backend can tell.
            ServiceError: the backend could not be asked.
            Exception: what the task raised: a fresh instance each time, of the original class if
                that is loaded here, otherwise `RemoteError`.
        """
        return self.settle(self._wait(timeout), propagate)

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> T:
        """Like `get`, for coroutines: the event loop runs on meanwhile."""
        return await self.settle_async(await self._wait_async(timeout), propagate)

    def __await__(self) -> Generator[Any, None, T]:
        return self.aget().__await__()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait for the task to end and return its exception, or None if it has a value.

        Raises:
            ResultTimeoutError: the task did not end in time.
        """
        found = self._outcome(self._wait(timeout))
        return found if isinstance(found, Exception) else None

    def stream(self, start: int = 0, timeout: float | None = None) -> Stream:
        """Return the items of a task that yields, for `for` or `async for`, as they come.

        They come in their order, and to any number of readers; a task that yields nothing has
        none. After the last one the iteration ends, or raises as `get()` does.

        Args:
            start: the index of the first item that is wanted: to go on, the number read before.
            timeout: seconds for the whole iteration; 0 takes what is there, None waits for ever.

        Raises:
            ConfigError: `start` is no index.
            UnsupportedError: the backend keeps no streams.
            ResultTimeoutError, ResultForgottenError, ServiceError: while iterating, as by `get()`.
            StreamBrokenError: an item is gone: it has expired, or the service dropped it.
        """
        from upshot.streaming import Stream  # few tasks yield

        return Stream(self.origin, self.id, start=start, timeout=timeout, end=self.settle)

    def updates(self, timeout: float | None = None) -> Updates:
        """Return what is seen of the task until it has ended, for `for` or `async for`.

        Each is an `Update` of state, info and attempt: first what is there now, last the end, which
        is never missed; in between the latest, five times a second at most. A failure raises none.

        Raises:
            ResultTimeoutError, ResultForgottenError, ServiceError: while iterating, as by `get()`.
        """
        from upshot.updates import Updates  # few tasks are followed

        return Updates(self.origin, self.id, timeout=timeout)

    def add_done_callback(self, callback: Callable[[AsyncResult[T]], object]) -> None:
        """Call `callback(handle)` once, when the task has ended; at once if it has already.

        Callbacks run one after the other on a thread of their own, with a handle that holds the
        outcome. What they raise is logged. They do not run if the backend is closed before.
        """

        def ended(record: Record | UpshotError) -> None:
            if isinstance(record, Record):
                callback(self.holding(record))

        self.mark_released()
        self.origin.client.when_ended(self.id, ended)

    # -- releasing --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Delete the record and all that belongs to it; harmless if there is none.

        A revocation is deleted as well: a task that still waits for a worker is run then.
        """
        self.mark_released()
        self._record = None
        self.origin.client.forget([self.id], plain=self.is_plain)

    def revoke(self) -> bool:
        """Ask that the task does not run, or that its outcome is not kept.

        The state becomes REVOKED at once. A task that is running goes on until it asks
        `current_task().is_revoked()` or ends; what it returns is not stored. Where results are
        carried and not stored (`rpc://`), no worker can ask: the task runs, its outcome is void.
        Do not `forget()` it before the task has come to a worker, which is to see it.

        Returns:
            False if the task had ended already: then nothing was changed.
        """
        return self.origin.revoke(self.id)

    # -- below the surface ------------------------------------------------------------------------

    def track(self, *, warn: bool) -> AsyncResult[T]:
        """Count this handle as outstanding until it is read or forgotten; returns itself."""
        self.origin.handles.add(self)
        self._is_tracked = True
        self._released = not warn
        return self

    def _look(self) -> Record | None:
        return self._record or self.origin.client.load(self.id)

    def holding(self, record: Record) -> AsyncResult[T]:
        """Return a handle of the same id that answers from a terminal `record`, without asking."""
        return AsyncResult(self.id, self.origin, queue=self.queue, record=record)

    def mark_released(self) -> None:
        """Count this handle as read or forgotten from now on."""
        self._released = True
        if self._is_tracked:
            self._is_tracked = False
            self.origin.handles.discard(self)

    def _wait(self, timeout: float | None) -> Record:
        if self._record is not None:
            Deadline(timeout)  # refuses what is no timeout, also where nothing is waited for
            return self._record
        return self.origin.wait(self.id, self.queue, timeout)

    async def _wait_async(self, timeout: float | None) -> Record:
        Deadline(timeout)  # as above
        return self._record or await self.origin.wait_async(self.id, self.queue, timeout)

    def settle(self, record: Record, propagate: bool = True) -> T:
        """Return what a terminal `record` holds, or raise it, as `get` does; count as read."""
        found = self._outcome(record)
        self.mark_released()
        if record.state == _SUCCESS:
            self.is_plain = is_plain(record)
        if propagate and record.state != _SUCCESS and isinstance(found, Exception):
            raise found
        return cast("T", found)

    async def settle_async(self, record: Record, propagate: bool) -> T:
        """Like `settle`; what is kept elsewhere is read by a thread."""
        if record.outcome is None or offloaded_of(record.outcome.content_type) is None:
            return self.settle(record, propagate)
        return await asyncio.to_thread(self.settle, record, propagate)

    def _outcome(self, record: Record) -> T | Exception:
        """Return a terminal record's value, or a fresh exception."""
        origin, outcome = self.origin, record.outcome
        codecs = origin.codecs
        if record.state == _SUCCESS and outcome is not None:
            return cast("T", decode_value(codecs, outcome, origin.annotation(record.name)))
        if record.state == State.REVOKED:
            error = TaskRevokedError(f"task {printable(self.id)!r} was revoked")
            if outcome is not None:
                error.__cause__ = decode_failure(codecs, outcome)
            return error
        if outcome is None:
            raise AssertionError("SUCCESS and FAILURE are stored with an outcome")
        return decode_failure(codecs, outcome)


def _unpickle(task_id: str, address: str, namespace: str, queue: str) -> AsyncResult[Any]:
    # Where no app has opened its backend yet, the handle knows its origin by name.
    return AsyncResult(task_id, cast("Origin", (address, namespace)), queue=queue)
