"""Wall clocks that are wrong, or jump, and records that go before anybody expected it.

A process reads the wall clock in one place, `upshot.clock.now`; here that tells another time. The
services keep the machine's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import App, State, clock
from upshot.errors import ResultTimeoutError, TaskExpiredError
from upshot_conformance.records import success
from upshot_conformance.servers import MemcachedServer, RedisServer

from .scoreboard import Score

HOUR: Final = 3600.0  # seconds
CENTURY: Final = 100 * 365 * 86_400.0  # seconds
SHORT: Final = 0.5  # seconds that a wait in vain takes

_SPARED: Final = ("mongo-standalone", "redis-sentinel")  # in CI: others go the same ways
EACH = [
    pytest.param(each, id=each.name, marks=[pytest.mark.wide] if each.name in _SPARED else [])
    for each in SERVICES
]


_QUICK: Final = ("memory", "sqlite", "redis")  # each waits in another way
ONCE = [
    pytest.param(each, id=each.name, marks=[] if each.name in _QUICK else [pytest.mark.wide])
    for each in SERVICES
]


class WallClock:
    """The wall clock of this process, `offset` seconds ahead of the machine's."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._true = clock.now

    def now(self) -> float:
        """What `upshot.clock.now` returns instead."""
        return self._true() + self.offset


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The process's clock, which a test sets."""
    fake = WallClock()
    monkeypatch.setattr(clock, "now", fake.now)
    return fake


@pytest.fixture
def open_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Open apps on a service, broker and backend at once if it can be, closed by the end."""
    with ExitStack() as stack:

        def opened(service: Service, **settings: Any) -> App:
            at = service.find(request, tmp_path)
            broker = at if service.broker or service.name == "memory" else "memory://clocks"
            results = "rpc://" if service.name == "rpc" else at
            usual: dict[str, Any] = {
                "operation_timeout": PATIENCE / 2,
                "namespace": f"clocks-{tmp_path.name}"[:60],
            }
            return stack.enter_context(App(broker=broker, backend=results, **(usual | settings)))

        yield opened


@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", EACH)
def test_results_are_kept_as_long_as_said_whatever_the_clock_says(
    service: Service, open_app: Callable[..., App], wall: WallClock, score: Score
) -> None:
    for offset in (HOUR, -HOUR):
        wall.offset = offset
        for expires in (None, 0.001, 60.0, 31 * 86_400.0, CENTURY):
            app = open_app(service, result_expires=expires)
            handle = app.send_task("jobs.echo", ["kept"])
            score.submitted += 1
            app.results.store(
                success(handle.id, "kept"), expires=expires, reply_to=app.results.backend.reply_to
            )
            what = f"expires {expires} with the clock {offset:+g} s"
            if expires == 0.001:
                comes_to(partial(getattr, handle, "state"), State.PENDING)
                score.recorded += 1
            elif handle.get(timeout=PATIENCE) == "kept":
                score.recorded += 1
            else:
                score.surprise(what)
            app.close()
    score.executed = score.submitted
    score.judge()


@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", ONCE)
def test_a_wait_takes_as_long_as_it_says_while_the_clock_jumps(
    service: Service, open_app: Callable[..., App], wall: WallClock, score: Score
) -> None:
    app = open_app(service, no_worker_warning=None)
    handle = app.send_task("jobs.echo", ["late"])
    with ThreadPoolExecutor(2) as pool:
        for offset in (HOUR, -HOUR, 0.0):
            began = clock.monotonic()
            vain = pool.submit(handle.exception, SHORT)
            waits = pool.submit(handle.get, PATIENCE) if not offset else None
            wall.offset = offset
            score.submitted += 1
            score.executed += isinstance(vain.exception(PATIENCE), ResultTimeoutError)
            score.hung += clock.monotonic() - began < SHORT  # it gave up because of the jump
        app.results.store(success(handle.id, "late"), reply_to=app.results.backend.reply_to)
        score.submitted += 1
        score.recorded += waits is not None and waits.result(PATIENCE) == "late"
    if not score.recorded:
        score.surprise("the result was not brought")
    score.judge()


@pytest.mark.experiment(5)
@pytest.mark.parametrize(
    "service",
    [
        pytest.param(each, id=each.broker or each.name)
        for each in SERVICES
        if each.broker or each.name == "memory"
    ],
)
def test_a_worker_and_a_caller_whose_clocks_agree_on_nothing_but_the_hour(
    service: Service, open_app: Callable[..., App], wall: WallClock, score: Score
) -> None:
    """A message's `eta` and `expires` are moments: a clock that is wrong moves them, and no more.

    One that was sent by a clock an hour fast, and expires a minute later by it, is run by a worker
    whose clock is right; one that was sent by a slow clock is expired already, and says so.
    """
    ran: list[str] = []
    changed = threading.Condition()

    def note(name: str) -> str:
        with changed:
            ran.append(name)
            changed.notify_all()
        return name

    app = open_app(service, no_worker_warning=None)
    task = app.task(name="jobs.note")(note)
    wall.offset = HOUR
    fast = task.apply_async(("fast",), expires=60.0)
    wall.offset = -HOUR
    slow = task.apply_async(("slow",), expires=60.0)
    due = task.apply_async(("due",), countdown=60.0)
    wall.offset = 0.0
    score.submitted = 3
    with app.running(threads=1):
        score.recorded += fast.get(timeout=PATIENCE) == "fast"
        revoked = slow.exception(timeout=PATIENCE)
        score.recorded += isinstance(revoked and revoked.__cause__, TaskExpiredError)
        score.recorded += due.get(timeout=PATIENCE) == "due"
        wall.offset = HOUR  # while a worker runs: leases, etas and waits go on
        later = task.delay("later")
        score.submitted += 1
        score.recorded += later.get(timeout=PATIENCE) == "later"
        wall.offset = -HOUR
        last = task.delay("last")
        score.submitted += 1
        score.recorded += last.get(timeout=PATIENCE) == "last"
    score.executed = len(ran)
    if sorted(ran) != ["due", "fast", "last", "later"]:
        score.surprise(f"{ran} were run")
    score.lost = score.submitted - score.recorded
    score.judge()


@pytest.mark.experiment(5)
@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_a_wait_for_what_was_evicted_times_out(kind: str, score: Score) -> None:
    """The service throws records away when its memory is full; whoever waits for one is told."""
    server: Any = (
        RedisServer(arguments=["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"])
        if kind == "redis"
        else MemcachedServer(megabytes=4)
    )
    with (
        server,
        App(broker="memory://evicting", backend=server.url, no_worker_warning=None) as app,
    ):
        piece = "x" * 100_000  # all of one size: memcached evicts what is about as large
        first = app.send_task("jobs.echo", ["first"])
        app.results.store(success(first.id, piece))
        assert first.get(timeout=PATIENCE) == piece
        score.submitted = 1
        for number in range(300):  # seven times what it may hold; nobody looks at `first`
            app.results.store(success(f"filler-{number}", piece))
        began = clock.monotonic()
        try:
            first.get(timeout=SHORT)
            score.surprise("it was not evicted")
        except ResultTimeoutError as exc:
            score.executed = score.recorded = 1
            score.remark(f"told after {clock.monotonic() - began:.2f} s")
            if "PENDING" not in str(exc):
                score.surprise(str(exc))
    score.judge()
