"""Following tasks: every state and report that is seen until they have ended.

The wait hub hears of ends only. What comes before is found by looking: one thread of a process
reads all records that somebody follows, in one batch, and tells who has not seen them yet.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Final, NamedTuple, final

from upshot import clock, forking
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import (
    ResultForgottenError,
    ServiceClosedError,
    ServiceError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.origin import Origin
from upshot.outcome import decode_value
from upshot.record import Record, printable
from upshot.serializers import Codecs
from upshot.states import State
from upshot.waiters import LoopSink, Sink, ThreadSink, timed_out

__all__ = ["Update", "Updates"]

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.2
"""Seconds between two looks: a task's reports are stored twice as often at most, and nobody reads
more than five a second."""


class Update(NamedTuple):
    """What was seen of a task at one moment.

    Attributes:
        state: a name of `upshot.State`, or a custom one; PENDING if there is no record.
        info: what the task said last by `progress()`; None if nothing.
        attempt: 1 for the first run; 0 before it has begun.
    """

    state: str
    info: dict[str, Any] | None
    attempt: int


@final
class Updates:
    """The updates of one task: iterate with `for` or with `async for`.

    Args:
        origin: the app's side of the task's handle.
        task_id: which task.
        timeout: seconds for the whole iteration; 0 looks once, None waits for ever.

    Raises:
        ValueError: `timeout` is negative.
    """

    def __init__(self, origin: Origin, task_id: str, *, timeout: float | None) -> None:
        Deadline(timeout)
        self._origin = origin
        self._client = origin.client
        self._task_id = task_id
        self._key = origin.client.keys.key(task_id)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Updates of {printable(self._task_id)!r}>"

    def __iter__(self) -> Generator[Update]:
        """Yield what is seen; see `AsyncResult.updates`."""
        deadline, view = Deadline(self._timeout), _View(self._origin.codecs)
        yield from view.news(self._look(deadline))
        if view.is_over:
            return
        sink, hub, changes = ThreadSink[Record](), self._client.waiting_hub(), _of(self._client)
        try:
            hub.watch([self._key], sink)
            changes.follow(self._key, sink, view.seen)
            while not view.is_over:
                heard = list(sink.collect(1, deadline))
                if not heard:
                    trouble = hub.troubles.current
                    raise timed_out([self._task_id], self._timeout, trouble) from trouble
                yield from view.news(heard)
        finally:
            changes.unfollow(self._key, sink)
            hub.unwatch([self._key], sink)

    async def __aiter__(self) -> AsyncGenerator[Update]:
        """Yield what is seen, for coroutines: the event loop runs on meanwhile."""
        deadline, view = Deadline(self._timeout), _View(self._origin.codecs)
        for update in view.news(await asyncio.to_thread(self._look, deadline)):
            yield update
        if view.is_over:
            return
        sink, hub, changes = LoopSink[Record](), self._client.waiting_hub(), _of(self._client)
        try:
            hub.watch([self._key], sink)
            changes.follow(self._key, sink, view.seen)
            while not view.is_over:
                heard = await sink.batch(deadline)
                if not heard:
                    trouble = hub.troubles.current
                    raise timed_out([self._task_id], self._timeout, trouble) from trouble
                for update in view.news(heard):
                    yield update
        finally:
            changes.unfollow(self._key, sink)
            hub.unwatch([self._key], sink)

    def _look(self, deadline: Deadline) -> Sequence[tuple[str, Record | UpshotError | None]]:
        """Return what is there now, as it would be heard; nothing if that cannot be known."""
        try:
            return [(self._key, self._client.reader.record(self._key, deadline))]
        except ServiceUnavailableError:  # the hub tries on, and says why if that is in vain
            return []


@final
class _View:
    """What one follower has seen.

    Attributes:
        seen: the last record, None if there was none.
        is_over: whether it was the end of the task.
    """

    def __init__(self, codecs: Codecs) -> None:
        self.seen: Record | None = None
        self.is_over = False
        self._codecs = codecs
        self._last: Update | None = None

    def news(self, heard: Sequence[tuple[str, Record | UpshotError | None]]) -> Generator[Update]:
        """Yield what is new; raise what ends the wait otherwise."""
        for _, found in heard:
            if isinstance(found, UpshotError):
                raise found
            self.seen = found
            update = self._update(found)
            if update != self._last:
                self._last = update
                yield update
            if found is not None and found.is_terminal:
                self.is_over = True
                return

    def _update(self, record: Record | None) -> Update:
        if record is None:
            return Update(State.PENDING, None, 0)
        attempt = record.attempt if record.started_at is not None else 0
        info = None if record.info is None else decode_value(self._codecs, record.info)
        return Update(record.state, info, attempt)


@final
class _Changes:
    """Looks, for everybody in this process who follows a task of one client.

    Args:
        client: whose tasks.
    """

    def __init__(self, client: ResultClient) -> None:
        self._reader = client.reader
        self._followers: dict[tuple[str, int], tuple[Sink[Record], Record | None]] = {}
        self._gone: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        forking.register(self)

    def follow(self, key: str, sink: Sink[Record], seen: Record | None) -> None:
        """Deliver to `sink` each record that differs from the one delivered before, from `seen`."""
        with self._lock:
            self._followers[key, id(sink)] = sink, seen
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="upshot-updates", daemon=True
                )
                self._thread.start()

    def unfollow(self, key: str, sink: Sink[Record]) -> None:
        """Deliver nothing more; takes no lock, as `Hub.unwatch`: a finaliser may come here."""
        self._gone.append((key, id(sink)))

    def after_fork(self) -> None:
        """Leave the parent its followers."""
        self._lock = threading.Lock()
        self._followers, self._thread = {}, None

    def _run(self) -> None:
        """Look until nobody follows anything."""
        pause = _INTERVAL
        while True:
            clock.sleep(pause)
            with self._lock:
                while self._gone:
                    self._followers.pop(self._gone.popleft(), None)
                followers = dict(self._followers)
                if not followers:
                    self._thread = None
                    return
            began = clock.monotonic()
            try:
                self._look(followers)
            except ServiceClosedError:
                with self._lock:  # their hub has told them
                    self._followers.clear()
            except ServiceError as exc:
                logger.debug("no updates for now: %s", exc)
            except Exception:  # without this thread nobody would hear of anything
                logger.exception("looking for updates failed")
            pause = max(_INTERVAL, clock.monotonic() - began)

    def _look(self, followers: dict[tuple[str, int], tuple[Sink[Record], Record | None]]) -> None:
        keys = list(dict.fromkeys(key for key, _ in followers))
        found = dict(zip(keys, self._reader.reachable(keys), strict=True))
        for place, (sink, seen) in followers.items():
            now = found[place[0]]
            if sink.is_gone:
                self._gone.append(place)
            elif isinstance(now, Record) and now != seen:
                with self._lock:
                    self._followers[place] = sink, now
                sink.deliver([(place[0], now)])
            elif now is None and seen is not None:
                self._gone.append(place)
                sink.deliver([(place[0], ResultForgottenError("forgotten during the wait"))])


_ALL: Final[weakref.WeakKeyDictionary[ResultClient, _Changes]] = weakref.WeakKeyDictionary()


def _of(client: ResultClient) -> _Changes:
    """Return who looks for the followers of a client."""
    return _ALL.get(client) or _ALL.setdefault(client, _Changes(client))
