"""Reads what the page shows: in threads, a few at once, and once for all who look at the same.

Each look is kept for a moment. Browsers that show the same list share it, however many they are,
and all of them share the app's one connection pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar, final

from upshot import clock
from upshot.app import App
from upshot.cli.printing import safe
from upshot.cli.results.source import require_shared
from upshot.errors import CorruptRecordError, SerializationError, ServiceUnavailableError
from upshot.inventory import MAX_SORTED, newest
from upshot.overview import Overview, overview
from upshot.record import Record, printable
from upshot_contrib.web.presenting import Row, Shown
from upshot_contrib.web.queries import PAGE, Query

__all__ = ["Listed", "Looks"]

T = TypeVar("T")

_THREADS: Final = 4  # looks at once: each may take a connection, and holds a page of records
_KEPT: Final = 64  # looks that are remembered
_SHARE: Final = 10  # enumerations that nobody asked for take a tenth of the time at most
_RECORDS: Final = 10_000  # that are looked at for running tasks: about a second


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One page of the list.

    Attributes:
        rows: the last changed first.
        ids: theirs.
        matched: how many results there are on all pages.
        unreadable: how many records cannot be read.
        states: how many there are in each state, if the query did not name one.
    """

    rows: tuple[Row, ...]
    ids: tuple[str, ...]
    matched: int
    unreadable: int
    states: dict[str, int]

    @property
    def pages(self) -> int:
        """How many pages there are, 1 or more."""
        return max(1, -(-self.matched // PAGE))

    @property
    def last_page(self) -> int:
        """The last page that can be asked for, however many there are."""
        return MAX_SORTED // PAGE


@dataclass(slots=True)
class _Look(Generic[T]):
    """One look: under way, or done.

    Attributes:
        task: what it finds.
        began: when, on the monotonic clock.
        ended: 0 while it is under way.
        has_failed: whether it found nothing: that is not kept to spare the service.
    """

    task: asyncio.Task[T]
    began: float
    ended: float = 0.0
    has_failed: bool = False

    def is_fresh(self, seconds: float, *, sparing: bool) -> bool:
        if not self.ended:
            return True
        is_spared = sparing and not self.has_failed
        least = _SHARE * (self.ended - self.began) if is_spared else 0.0
        return clock.monotonic() - self.ended < max(seconds, least)


@final
class Looks:
    """All looks of one page, for one event loop.

    Args:
        app: whose results.
        queues: those that are shown, by name.
    """

    def __init__(self, app: App, queues: Sequence[str]) -> None:
        self._app = app
        self._queues = queues
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="upshot-web")
        self._looks: dict[tuple[object, ...], _Look[Any]] = {}
        self._stopping = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Let nobody wait any longer: a service that does not answer would take its time."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def close(self) -> None:
        """Begin no more looks; those under way are not waited for."""
        self.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def results(self, query: Query, *, sparing: bool) -> Listed:
        """Return a page of the list, not older than a second.

        All records are read for it. `sparing` is for who looks again and again: what was found
        before is then kept for ten times as long as it took, and only its rows are read again.
        """
        key: tuple[object, ...] = ("results", query)
        listed = await self._once(key, lambda: self._list(query), 1.0, sparing=sparing)
        look = self._looks.get(key)
        if sparing and look is not None and not look.is_fresh(1.0, sparing=False):
            key = ("rows", query, listed.ids)
            rows = await self._once(key, lambda: self._rows(listed), 1.0)
            return replace(listed, rows=rows)
        return listed

    async def result(self, task_id: str) -> Shown:
        """Return what is known about a task, not older than a third of a second."""
        return await self._once(("result", task_id), lambda: self._show(task_id), 0.3)

    async def overview(self, *, sparing: bool) -> Overview:
        """Return workers and queues, not older than a second; `sparing` as of `results`."""
        return await self._once(
            ("overview",),
            lambda: overview(self._app, self._queues, records=_RECORDS),
            1.0,
            sparing=sparing,
        )

    async def _once(
        self,
        key: tuple[object, ...],
        make: Callable[[], T],
        seconds: float,
        *,
        sparing: bool = False,
    ) -> T:
        """Return what `make` returned not longer than `seconds` ago, or returns now."""
        look: _Look[T] | None = self._looks.get(key)
        if look is None or not look.is_fresh(seconds, sparing=sparing):
            look = self._begun(make)
            self._looks.pop(key, None)
            self._looks[key] = look
            while len(self._looks) > _KEPT:
                del self._looks[next(iter(self._looks))]
        # Who goes away does not take it from the others.
        await asyncio.wait((look.task, self._stopping), return_when=asyncio.FIRST_COMPLETED)
        if not look.task.done():
            raise ServiceUnavailableError("the page is being stopped")
        return look.task.result()

    def _begun(self, make: Callable[[], T]) -> _Look[T]:
        loop = asyncio.get_running_loop()
        look = _Look(asyncio.ensure_future(self._made(make, loop)), clock.monotonic())

        def done(task: asyncio.Task[T]) -> None:
            look.ended = clock.monotonic()
            # Asking for it keeps asyncio quiet: everybody who would get it may be gone.
            look.has_failed = task.cancelled() or task.exception() is not None

        look.task.add_done_callback(done)
        return look

    async def _made(self, make: Callable[[], T], loop: asyncio.AbstractEventLoop) -> T:
        return await loop.run_in_executor(self._threads, make)

    # -- in threads ---------------------------------------------------------------------------

    def _list(self, query: Query) -> Listed:
        require_shared(self._app.results)
        page = newest(self._app.results, query.filter(), limit=PAGE, page=query.page)
        return Listed(
            rows=tuple(Row.of(self._app, record) for record in page.records),
            ids=tuple(record.task_id for record in page.records),
            matched=page.matched,
            unreadable=page.unreadable,
            states=dict(page.states),
        )

    def _rows(self, listed: Listed) -> tuple[Row, ...]:
        """Read the rows of a page again; what has gone meanwhile goes with the next list."""
        found = self._app.results.load_many(listed.ids)
        return tuple(
            Row.of(self._app, record) if isinstance(record, Record) else row
            for row, record in zip(listed.rows, found, strict=True)
        )

    def _show(self, task_id: str) -> Shown:
        require_shared(self._app.results)
        try:
            return Shown.of(self._app, task_id, self._app.results.load(task_id))
        except (CorruptRecordError, SerializationError) as exc:
            return Shown(None, printable(task_id), unreadable=safe(str(exc)))
