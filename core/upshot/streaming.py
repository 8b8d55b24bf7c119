"""Reading a stream: the items of a task, in their order, as they come.

A reader keeps no place at the service: it reads the items from an index on, many at once, and where
there are none it waits for the next one or for the end of the task. So there may be any number of
readers, each may come when it likes, and go on where it or another one has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, cast, final

from upshot import clock
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import (
    ConfigError,
    ResultForgottenError,
    ResultTimeoutError,
    ServiceUnavailableError,
    StreamBrokenError,
    UnsupportedError,
    UpshotError,
)
from upshot.items import count_of
from upshot.origin import Origin
from upshot.outcome import decode_value
from upshot.reading import BATCH
from upshot.record import Record, printable
from upshot.waiters import LoopSink, ThreadSink
from upshot.yielding import item_type

__all__ = ["Stream"]

_FIRST_LOOK: Final = 8  # items that the first look asks for; each full one asks for twice as many
_MOST_BYTES: Final = 4 * 2**20  # of items that a look is to bring; it has one item at least


@final
class Stream:
    """The items of one task: iterate with `for` or with `async for`, each time from `start` on.

    Args:
        origin: the app's side of the task's handle.
        task_id: whose items.
        start: the index of the first one that is wanted.
        timeout: seconds for the whole iteration; 0 takes what is there, None waits for ever.
        end: returns, or raises what the task did, of the record that ends it.

    Raises:
        ConfigError: `start` is no index.
        ValueError: `timeout` is negative.
        UnsupportedError: the backend keeps no streams.
    """

    def __init__(
        self,
        origin: Origin,
        task_id: str,
        *,
        start: int,
        timeout: float | None,
        end: Callable[[Record], object],
    ) -> None:
        if not isinstance(cast("object", start), int) or start < 0:
            raise ConfigError(f"stream: start is an index, 0 or more; not {start!r}")
        Deadline(timeout)
        client = origin.client
        if not client.capabilities.streams:
            raise UnsupportedError(f"{client.url} keeps no streams")
        self._origin = origin
        self._client = client
        self._task_id = task_id
        self._start = start
        self._timeout = timeout
        self._end = end

    def __repr__(self) -> str:
        return f"<Stream of {printable(self._task_id)!r} from {self._start}>"

    def __iter__(self) -> Generator[Any]:
        """Yield the items; see `AsyncResult.stream`."""
        deadline, place = Deadline(self._timeout), _Place(self._client, self._task_id, self._start)
        sink, hub = ThreadSink[Record](), None
        try:
            while True:
                for record in place.look(deadline):
                    yield self._decode(record)
                if place.end is not None:
                    self._end(place.end)
                    return
                if place.is_behind:
                    continue
                if deadline.expired:
                    raise self._timed_out(place)
                hub = hub or self._client.waiting_hub()
                hub.watch(place.wanted(), sink)
                place.heed(list(sink.collect(1, deadline)))
        finally:
            if hub is not None:
                hub.unwatch(place.awaited, sink)

    async def __aiter__(self) -> AsyncGenerator[Any]:
        """Yield the items, for coroutines: the event loop runs on meanwhile."""
        deadline, place = Deadline(self._timeout), _Place(self._client, self._task_id, self._start)
        sink, hub = LoopSink[Record](), None
        try:
            while True:
                for record in await asyncio.to_thread(place.look, deadline):
                    yield self._decode(record)
                if place.end is not None:
                    self._end(place.end)
                    return
                if place.is_behind:
                    continue
                if deadline.expired:
                    raise self._timed_out(place)
                hub = hub or self._client.waiting_hub()
                hub.watch(place.wanted(), sink)
                place.heed(await sink.batch(deadline) or ())
        finally:
            if hub is not None:
                hub.unwatch(place.awaited, sink)

    def _decode(self, record: Record) -> Any:
        if record.outcome is None:
            raise AssertionError("an item is stored with its value")
        kind = item_type(self._origin.annotation(record.name))
        return decode_value(self._origin.codecs, record.outcome, kind)

    def _timed_out(self, place: _Place) -> ResultTimeoutError:
        hub = self._client.waiting_hub()
        trouble = place.trouble or hub.troubles.current
        why = f"; {trouble}" if trouble else ""
        error = ResultTimeoutError(
            f"task {printable(self._task_id)!r} did not end within {self._timeout} seconds; the "
            f"items before {place.index} were there: stream(start={place.index}) goes on{why}"
        )
        error.__cause__ = trouble
        return error


@final
class _Place:
    """Where a reader is in a stream.

    Attributes:
        index: of the next item.
        end: the record that ends the task, once all items before it were returned.
        is_behind: there may be more to read at once.
        awaited: the keys that the hub watches for this reader.
        trouble: why the last look saw nothing, if so.
    """

    def __init__(self, client: ResultClient, task_id: str, start: int) -> None:
        self.index = start
        self.end: Record | None = None
        self.is_behind = False
        self.awaited: set[str] = set()
        self.trouble: UpshotError | None = None
        self._client = client
        self._task_id = task_id
        self._key = client.keys.key(task_id)
        self._size = _FIRST_LOOK
        self._was_there = False

    def look(self, deadline: Deadline) -> list[Record]:
        """Return the items that come next, as far as they are there.

        Raises:
            StreamBrokenError: the next one will not come any more.
            ResultForgottenError: the task was forgotten after it had been seen.
            CorruptRecordError, PayloadTooLargeError: what is there cannot be read.
            ServiceError: the backend could not be asked, and not only for the moment.
        """
        reader, size = self._client.reader, self._size
        keys = self._client.keys.items(self._task_id, range(self.index, self.index + size))
        self.trouble, self.is_behind = None, False
        try:
            *found, head = reader.records([*keys, self._key], deadline)
            is_over = isinstance(head, Record) and head.is_terminal
            if is_over and not isinstance(found[-1], Record):
                # The end may have been stored after the items were read, and before it was.
                clock.sleep(self._client.capabilities.visibility)
                found = reader.records(keys, deadline)
        except ServiceUnavailableError as exc:
            self.trouble = exc
            return []
        items = _leading(found)
        self.index += len(items)
        self._resize(items, size)
        if len(items) == size:
            self.is_behind = True
        elif not items or is_over:
            self._judge(found[len(items)], head, is_over=is_over, has_items=bool(items))
        self._was_there = self._was_there or head is not None
        return items

    def wanted(self) -> list[str]:
        """Return what is to be watched besides what is watched already."""
        fresh = {self._key, *self._client.keys.items(self._task_id, (self.index,))} - self.awaited
        self.awaited |= fresh
        return list(fresh)

    def heed(self, ended: Any) -> None:
        """Take what the hub delivered: a look tells what it means, unless the wait is over."""
        for key, found in ended:
            self.awaited.discard(key)
            if isinstance(found, UpshotError) and not (
                isinstance(found, ResultForgottenError) and key != self._key
            ):
                raise found

    def _judge(
        self,
        missing: Record | UpshotError | None,
        head: Record | UpshotError | None,
        *,
        is_over: bool,
        has_items: bool,
    ) -> None:
        """Find out what it means that the next item is not there."""
        if isinstance(missing, UpshotError):
            if not has_items:
                raise missing
            self.is_behind = True  # it is for the next look to raise
        elif is_over and isinstance(head, Record):
            if self.index < (count_of(head) or 0):
                if not has_items:
                    raise self._broken()
                self.is_behind = True
            else:
                self.end = head
        elif isinstance(head, UpshotError):
            raise head
        elif head is None and self._was_there:
            raise ResultForgottenError(f"task {printable(self._task_id)!r} was forgotten")

    def _resize(self, items: list[Record], size: int) -> None:
        """Choose how many items the next look asks for."""
        if not items:
            return
        length = sum(len(each.outcome.body) for each in items if each.outcome) // len(items)
        wanted = 2 * size if len(items) == size else _FIRST_LOOK
        self._size = max(1, min(wanted, BATCH, _MOST_BYTES // max(1, length)))

    def _broken(self) -> StreamBrokenError:
        return StreamBrokenError(
            f"item {self.index} of task {printable(self._task_id)!r} is gone from "
            f"{self._client.url}: it has expired, or the service dropped it",
            index=self.index,
        )


def _leading(found: list[Record | UpshotError | None]) -> list[Record]:
    """Return the records before the first thing that is none."""
    items: list[Record] = []
    for each in found:
        if not isinstance(each, Record):
            break
        items.append(each)
    return items
