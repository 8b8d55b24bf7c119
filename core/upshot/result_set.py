"""Many results at once: one connection and one thread, however many they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar, final

from upshot.clock import Deadline
from upshot.errors import ConfigError, ResultTimeoutError, UpshotError
from upshot.observing import Reading
from upshot.origin import Origin
from upshot.record import Record
from upshot.result import AsyncResult
from upshot.states import State
from upshot.waiters import timed_out

__all__ = ["ResultSet"]

T = TypeVar("T")


@final
class ResultSet(Generic[T]):
    """Handles in an order, waited for, read and released together.

    Args:
        handles: of one app; the same id may occur more than once.

    Raises:
        ConfigError: the handles belong to different backends.
    """

    def __init__(self, handles: Iterable[AsyncResult[T]] = ()) -> None:
        self._handles = list(handles)
        if len({id(handle.origin) for handle in self._handles}) > 1:
            raise ConfigError("a ResultSet holds results of one backend; make one for each")

    def __repr__(self) -> str:
        return f"<ResultSet of {len(self._handles)}>"

    def __len__(self) -> int:
        return len(self._handles)

    def __iter__(self) -> Iterator[AsyncResult[T]]:
        return iter(self._handles)

    def __getitem__(self, index: int) -> AsyncResult[T]:
        return self._handles[index]

    def __enter__(self) -> ResultSet[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    # -- waiting ----------------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, propagate: bool = True, *, progress: bool = False
    ) -> list[T]:
        """Wait for all tasks and return their values in the order of the handles.

        Args:
            timeout: seconds for all together; 0 looks once, None waits for ever.
            propagate: False puts the exception of a failed task in its place; True raises the
                one that is first in order, after all have ended.
            progress: show on stderr how many have ended, if it is a terminal.

        Raises:
            ResultTimeoutError: not all ended in time; nothing was consumed.
            Exception: what a task raised, as `AsyncResult.get` says.
        """
        reading = self._reading()
        with self._watch(reading):
            completed: Iterable[tuple[str, Record]] = self._completed(timeout)
            if progress:
                from upshot.bar import shown  # with rich, which takes longer to import than upshot

                completed = shown(completed, len(self._by_id()))
            records = dict(completed)
            if reading is not None:
                reading.records = tuple(records.values())
        return [handle.settle(records[handle.id], propagate) for handle in self._handles]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[T]:
        """Like `get`, for coroutines."""
        reading = self._reading()
        with self._watch(reading):
            completed = self._completed_async(timeout)
            try:
                records = {handle.id: record async for handle, record in completed}
            finally:
                await completed.aclose()
            if reading is not None:
                reading.records = tuple(records.values())
        return [
            await handle.settle_async(records[handle.id], propagate) for handle in self._handles
        ]

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self.aget().__await__()

    def as_completed(self, timeout: float | None = None) -> Iterator[AsyncResult[T]]:
        """Yield a handle for each distinct id as its task ends; it holds the outcome already.

        Raises:
            ResultTimeoutError: not all ended in time; those that did have been yielded.
            ResultForgottenError, CorruptRecordError: one of them has no outcome to hold.
        """
        handles = self._by_id()
        for task_id, record in self._completed(timeout):
            handle = handles[task_id]
            handle.mark_released()
            yield handle.holding(record)

    def _completed(self, timeout: float | None) -> Generator[tuple[str, Record]]:
        """Yield each distinct id with its terminal record, as its task ends."""
        if not self._handles:
            return
        origin, deadline, handles = self._origin, Deadline(timeout), self._by_id()
        patience = origin.patience
        is_long = patience is not None and (timeout is None or timeout > patience)
        if is_long:
            try:
                for task_id, found in origin.client.wait_many(list(handles), timeout=patience):
                    del handles[task_id]
                    yield task_id, _ended(found)
            except ResultTimeoutError as exc:
                if exc.__cause__ is None:
                    origin.warn_if_no_worker(handles, next(iter(handles.values())).queue)
        rest = origin.client.wait_many(list(handles), timeout=deadline.left(), look=not is_long)
        try:
            for task_id, found in rest:
                del handles[task_id]
                yield task_id, _ended(found)
        except ResultTimeoutError as exc:  # it says how long the rest was
            trouble = exc.__cause__
            raise timed_out(list(handles), timeout, trouble) from trouble

    async def as_completed_async(
        self, timeout: float | None = None
    ) -> AsyncIterator[AsyncResult[T]]:
        """Like `as_completed`, for coroutines."""
        completed = self._completed_async(timeout)
        try:
            async for handle, record in completed:
                handle.mark_released()
                yield handle.holding(record)
        finally:
            await completed.aclose()

    async def _completed_async(
        self, timeout: float | None
    ) -> AsyncGenerator[tuple[AsyncResult[T], Record]]:
        if not self._handles:
            return
        handles = self._by_id()
        ended = self._origin.client.wait_async(list(handles), timeout=timeout)
        try:
            async for task_id, found in ended:
                yield handles[task_id], _ended(found)
        finally:
            await ended.aclose()

    def __aiter__(self) -> AsyncIterator[AsyncResult[T]]:
        return self.as_completed_async()

    # -- looking, without waiting -----------------------------------------------------------------

    def completed_count(self) -> int:
        """Return how many of the handles have ended, in whatever way."""
        return sum(state.is_terminal for state in self._records() if state)

    def ready(self) -> bool:
        """Tell whether all have ended."""
        return self.completed_count() == len(self._handles)

    def successful(self) -> bool:
        """Tell whether all have ended with a value."""
        return all(record and record.state == State.SUCCESS for record in self._records())

    def failed(self) -> bool:
        """Tell whether at least one has ended with an exception."""
        return any(record and record.state == State.FAILURE for record in self._records())

    # -- releasing --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Delete all records and what belongs to them."""
        for handle in self._handles:
            handle.mark_released()
        if self._handles:
            plain = all(handle.is_plain for handle in self._handles)
            self._origin.client.forget(self._by_id(), plain=plain)

    def revoke(self) -> int:
        """Revoke each task; return how many had not ended."""
        return sum(handle.revoke() for handle in self._by_id().values())

    # -- below the surface ------------------------------------------------------------------------

    @property
    def _origin(self) -> Origin:
        return self._handles[0].origin

    def _reading(self) -> Reading | None:
        """Return what observers see of a wait; None if there are none."""
        if not (self._handles and self._origin.observers):
            return None
        return Reading(tuple(self._by_id()), self._handles[0].queue)

    def _watch(self, reading: Reading | None) -> AbstractContextManager[None]:
        return nullcontext() if reading is None else self._origin.watch(reading)

    def _by_id(self) -> dict[str, AsyncResult[T]]:
        return {handle.id: handle for handle in self._handles}

    def _records(self) -> list[Record | None]:
        if not self._handles:
            return []
        found = self._origin.client.load_many([handle.id for handle in self._handles])
        return [record if isinstance(record, Record) else None for record in found]


def _ended(found: Record | UpshotError) -> Record:
    if isinstance(found, Record):
        return found
    raise found
