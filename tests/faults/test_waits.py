"""Waits that end in every way: in time, too late, by a signal, by the garbage collector."""

from __future__ import annotations

import gc
import random
import signal
import statistics
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App, State, clock
from upshot.errors import ResultTimeoutError
from upshot.result import AsyncResult
from upshot_conformance.concurrency import start
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import success, unfinished

from .conftest import FULL, Sized
from .scoreboard import Score

WAITERS = 64  # on one id
ROUNDS = 7  # of which the median counts
ALLOWED = 0.020  # seconds on top of twice one waiter's median


@pytest.fixture
def url(service: Service, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where it is."""
    return service.find(request, tmp_path)


@pytest.fixture
def harness(service: Service, url: str) -> Iterator[Harness]:
    """Looks into the service behind upshot's back."""
    with closing(service.harness(url)) as opened:
        yield opened


@pytest.fixture
def app(url: str) -> Iterator[App]:
    """An app in a namespace of the test's own; nobody sends tasks."""
    with App(
        broker=f"memory://{uuid.uuid4().hex}",
        backend=url,
        namespace=f"test-{uuid.uuid4().hex[:8]}",
        no_worker_warning=None,
        operation_timeout=PATIENCE,
    ) as app:
        yield app


@pytest.fixture
def memory() -> Iterator[App]:
    """An app whose results nobody else sees."""
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, no_worker_warning=None) as app:
        yield app


def expected(app: App, task_id: str) -> AsyncResult[Any]:
    """Say that a task is under way, as its submission would; return its handle."""
    record = unfinished(task_id, State.QUEUED)
    reply_to = app.results.backend.reply_to
    app.results.store_encoded([app.results.encode(record, reply_to=reply_to)])
    return app.AsyncResult(task_id)


def end(app: App, task_id: str) -> None:
    """End a task with its id as its value."""
    app.results.store(success(task_id, task_id), reply_to=app.results.backend.reply_to)


def subscriptions(harness: Harness, namespace: str) -> set[str]:
    """Return what the service says somebody listens to."""
    try:
        return harness.subscriptions(namespace)
    except UnavailableError:
        return set()


@pytest.mark.experiment(7)
@pytest.mark.timeout(300)
def test_waits_that_time_out_leave_nothing(
    app: App, harness: Harness, score: Score, sized: Sized
) -> None:
    count = sized(300, 40)
    left: list[weakref.ref[Any]] = []

    def one(n: int) -> None:
        handle = expected(app, f"id-{n}")
        with pytest.raises(ResultTimeoutError) as failure:
            handle.get(timeout=0.001)
        left.extend((weakref.ref(handle), weakref.ref(failure.value)))

    with ThreadPoolExecutor(8) as callers:
        for done in [callers.submit(one, n) for n in range(count)]:
            done.result(PATIENCE)
    score.submitted = score.executed = count
    gc.collect()
    alive = sum(ref() is not None for ref in left)
    if alive:
        score.surprise(f"{alive} handles and errors are still referred to")
    held = app.results.stats()
    if held["keys"] or held["waiters"]:
        score.surprise(f"the client still holds {held}")
    comes_to(lambda: subscriptions(harness, app.settings.namespace), set[str]())
    if app.outstanding():
        score.surprise("handles are outstanding")
    for n in range(0, count, 10):  # nothing was consumed
        end(app, f"id-{n}")
        score.recorded += app.AsyncResult(f"id-{n}").get(timeout=PATIENCE) == f"id-{n}"
    app.ResultSet([f"id-{n}" for n in range(count)]).forget()
    score.judge()


def wake_up(app: App, waiters: int) -> float:
    """Return the seconds from the end of a task until the last of its waiters is back."""
    task_id = uuid.uuid4().hex
    handle = expected(app, task_id)
    back: list[float] = []

    def waits() -> None:
        assert handle.get(timeout=PATIENCE) == task_id
        back.append(clock.monotonic())

    waiting = [start(waits) for _ in range(waiters)]
    comes_to(lambda: app.results.stats()["waiters"], waiters)
    began = clock.monotonic()
    end(app, task_id)
    for each in waiting:
        each.result(PATIENCE)
    handle.forget()
    return max(back) - began


@pytest.mark.experiment(7)
@pytest.mark.timeout(300)
def test_many_waiters_on_one_id_wake_together(app: App, score: Score) -> None:
    """One answer of the service serves them all: they are as late as one alone is, or a bit more.

    Beside other tests a machine may have no time to run 64 threads: what it needs for them when
    they are woken by nothing but an event is measured, and allowed on top there.
    """
    wake_up(app, 1)
    alone = statistics.median(wake_up(app, 1) for _ in range(ROUNDS))
    idle = [woken_by_an_event(WAITERS) for _ in range(ROUNDS)]
    together = [wake_up(app, WAITERS) for _ in range(ROUNDS)]
    score.submitted = score.executed = score.recorded = WAITERS * ROUNDS
    score.remark(
        f"{WAITERS} waiters {1000 * statistics.median(together):.0f} ms, "
        f"one {1000 * alone:.0f} ms, an event {1000 * statistics.median(idle):.0f} ms"
    )
    late = statistics.median(together) if FULL else min(together) - 2 * max(idle)
    if late > 2 * alone + ALLOWED:
        score.surprise(f"{WAITERS} waiters woke after {late:.3f} s, one after {alone:.3f} s")
    score.judge()


def woken_by_an_event(waiters: int) -> float:
    """Return the seconds from setting an event until the last of its waiters is back."""
    event, here, back = threading.Event(), threading.Semaphore(0), list[float]()

    def waits() -> None:
        here.release()
        event.wait(PATIENCE)
        back.append(clock.monotonic())

    waiting = [start(waits) for _ in range(waiters)]
    for _ in waiting:
        here.acquire(timeout=PATIENCE)
    began = clock.monotonic()
    event.set()
    for each in waiting:
        each.result(PATIENCE)
    return max(back) - began


class Interrupt(BaseException):
    """What a signal handler raises, as Ctrl-C does."""


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise `Interrupt` in the main thread after so many seconds."""

    def strike(_: int, frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, strike)

    def set_alarm(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def until(alarm: Callable[[float], None], moment: float, handle: AsyncResult[Any]) -> None:
    """Wait for a result until the alarm strikes."""
    alarm(moment)
    handle.get(timeout=PATIENCE)


@pytest.mark.experiment(7)
@pytest.mark.timeout(300)
def test_waits_that_a_signal_ends(
    app: App, alarm: Callable[[float], None], score: Score, sized: Sized, dice: random.Random
) -> None:
    """Ctrl-C at any point of a wait: the next call gets its own answer, and nothing is left."""
    late: list[float] = []
    for n in range(sized(100, 15)):
        task_id = f"id-{n}"
        handle = expected(app, task_id)
        score.submitted += 1
        moment = dice.random() ** 2 * 0.03 + 0.0005
        began = clock.monotonic()
        with pytest.raises(Interrupt):
            until(alarm, moment, handle)
        late.append(clock.monotonic() - began - moment)
        end(app, task_id)
        found = handle.get(timeout=PATIENCE)
        score.executed += 1
        if found == task_id:
            score.recorded += 1
        else:
            score.surprise(f"{task_id} got the answer of {found}")
    comes_to(lambda: app.results.stats()["waiters"], 0)
    score.remark(f"the latest signal by {max(late):.3f} s")
    if max(late) > PATIENCE / 2:  # a wait looks for signals every second
        score.surprise(f"a signal was not heeded for {max(late):.1f} s")
    score.judge()


@pytest.mark.experiment(7)
def test_callbacks_of_every_kind(memory: App, score: Score, sized: Sized) -> None:
    """They raise, block, wait for other results, add callbacks; each is called, once."""
    count, gate = sized(500, 60), threading.Event()
    called: list[str] = []

    def handle_of(task_id: str) -> AsyncResult[Any]:
        return memory.AsyncResult(task_id)

    def called_with(kind: int, handle: AsyncResult[Any]) -> None:
        called.append(handle.id)
        if kind == 1:
            raise SystemExit(handle.id)
        if kind == 2:
            gate.wait(PATIENCE)
        if kind == 3:
            handle_of("awaited in a callback").get(timeout=PATIENCE)
        if kind == 4:
            handle.add_done_callback(lambda again: called.append(f"again {again.id}"))
        if kind == 5:
            handle.forget()

    for n in range(count):
        handle_of(f"id-{n}").add_done_callback(partial(called_with, n % 6))
    for n in range(count):
        end(memory, f"id-{n}")
    assert handle_of("id-0").get(timeout=PATIENCE) == "id-0"  # no callback holds up a wait
    gate.set()
    end(memory, "awaited in a callback")
    again = [f"again id-{n}" for n in range(count) if n % 6 == 4]
    comes_to(lambda: len(called), count + len(again))
    assert sorted(called) == sorted([*(f"id-{n}" for n in range(count)), *again])
    comes_to(lambda: memory.results.stats()["waiters"], 0)
    score.submitted = score.executed = score.recorded = len(called)
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(300)
def test_garbage_is_collected_during_waits(memory: App, score: Score, sized: Sized) -> None:
    """Handles and abandoned loops over results, in cycles, while all threads wait."""
    rounds, over = sized(300, 40), threading.Event()

    def litters() -> None:
        while not over.is_set():
            for n in range(20):
                waiting = memory.results.wait_many(["ended", f"litter-{n}"], timeout=PATIENCE)
                next(waiting)
                cycle: list[Any] = [waiting, memory.AsyncResult(f"litter-{n}")]
                cycle.append(cycle)
            gc.collect()

    end(memory, "ended")
    litterers = [start(litters) for _ in range(2)]

    def one(n: int) -> bool:
        ending = start(partial(end, memory, f"id-{n}"))
        right = bool(memory.AsyncResult(f"id-{n}").get(timeout=PATIENCE) == f"id-{n}")
        ending.result(PATIENCE)
        return right

    try:
        with ThreadPoolExecutor(4) as callers:
            score.recorded = sum(callers.map(one, range(rounds)))
    finally:
        over.set()
    for each in litterers:
        each.result(PATIENCE)
    score.submitted = score.executed = rounds
    gc.collect()
    comes_to(lambda: memory.results.stats()["waiters"], 0)
    score.lost = score.submitted - score.recorded
    score.judge()


@pytest.mark.experiment(7)
@pytest.mark.timeout(300)
def test_thousands_of_waits_for_what_nobody_stores(app: App, score: Score, sized: Sized) -> None:
    """They hold up no other wait, and go all at once."""
    count = sized(3000, 300)
    results, ids = app.results, [f"never-{n}" for n in range(count)]
    waits = results.wait_many([*ids, "one"], timeout=PATIENCE)
    expected(app, "one")
    ending = threading.Timer(0.05, end, [app, "one"])
    ending.start()
    assert next(waits)[0] == "one"
    ending.join()
    expected(app, "other")
    other = start(lambda: app.AsyncResult("other").get(timeout=PATIENCE))
    end(app, "other")
    assert other.result(PATIENCE) == "other"
    score.remark(f"{results.stats()['keys']} ids awaited")
    waits.close()
    comes_to(lambda: results.stats()["keys"], 0)
    score.submitted, score.executed, score.recorded = count + 2, count + 2, 2
    score.judge()
