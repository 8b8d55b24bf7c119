"""What is seen of a task while it runs: updates, throttled reports, a bar."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import signal
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from upshot import App, ResultSet, State, clock, current_task
from upshot.backend import StoredRecord
from upshot.engine.clerk import Clerk
from upshot.engine.reports import Reports
from upshot.errors import ResultForgottenError, ResultTimeoutError, ServiceUnavailableError
from upshot_backends.memory.results import MemoryBackend

PATIENCE = 20.0
"""Seconds: what takes longer is a failure."""


@pytest.fixture
def app() -> Iterator[App]:
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, no_worker_warning=None) as app:
        yield app


def test_updates_have_each_step_that_lasts_and_the_end(app: App) -> None:
    steps = [threading.Event() for _ in range(3)]

    @app.task
    def slow() -> str:
        for done, step in enumerate(steps):
            current_task().progress(done, len(steps), name=f"step {done}")
            assert step.wait(PATIENCE)
        return "over"

    sent = slow.delay()
    seen: list[tuple[str, Any]] = []
    with app.running():
        for update in sent.updates(timeout=PATIENCE):
            seen.append((update.state, (update.info or {}).get("name")))
            if update.info and update.state == State.STARTED:
                step: int = update.info["current"]
                steps[step].set()

    assert seen[-4:] == [
        *((State.STARTED, f"step {done}") for done in range(3)),
        (State.SUCCESS, "step 2"),
    ]
    assert set(seen[:-4]) <= {(State.QUEUED, None), (State.STARTED, None)}
    assert [update.state for update in sent.updates(timeout=0)] == [State.SUCCESS]


def test_updates_of_coroutines_are_the_same(app: App) -> None:
    go_on = threading.Event()

    @app.task
    def fails() -> None:
        current_task().progress(1, 2)
        assert go_on.wait(PATIENCE)
        raise ValueError("in the middle")

    async def follow(sent: Any) -> list[str]:
        states: list[str] = []
        async for update in sent.updates(timeout=PATIENCE):
            states.append(update.state)
            if update.info == {"current": 1, "total": 2}:
                go_on.set()
        return states

    async def all_of_them() -> list[list[str]]:
        return list(await asyncio.gather(*(follow(sent) for _ in range(20))))

    with app.running():
        sent = fails.delay()
        seen = asyncio.run(all_of_them())

    order: list[str] = [State.QUEUED, State.STARTED, State.FAILURE]  # some see only some
    assert [states[-1] for states in seen] == [State.FAILURE] * 20
    assert all(states == sorted(states, key=order.index) for states in seen)
    assert any(State.STARTED in states for states in seen)
    assert sent.info == {"current": 1, "total": 2}


def test_updates_that_time_out_consume_nothing(app: App) -> None:
    sent = app.AsyncResult("nobody")
    updates = iter(sent.updates(timeout=0.3))

    assert next(updates).state == State.PENDING
    with pytest.raises(ResultTimeoutError):
        next(updates)
    with pytest.raises(ValueError, match="timeout"):
        sent.updates(timeout=-1)


def test_what_cannot_be_read_at_first_is_not_said_to_be_pending(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def never() -> None: ...

    sent, reader = never.delay(), app.results.reader

    def away(*_: object) -> None:
        monkeypatch.undo()
        raise ServiceUnavailableError("it is away for a moment")

    async def first() -> str:
        async for update in sent.updates(timeout=PATIENCE):
            return update.state
        return ""

    monkeypatch.setattr(reader, "record", away)
    assert next(iter(sent.updates(timeout=PATIENCE))).state == State.QUEUED
    monkeypatch.setattr(reader, "record", away)
    assert asyncio.run(first()) == State.QUEUED


def test_updates_of_a_task_that_another_process_forgets_end(app: App) -> None:
    @app.task
    def never() -> None: ...

    sent = never.delay()
    updates = iter(sent.updates(timeout=PATIENCE))
    assert next(updates).state == State.QUEUED
    app.results.backend.delete([app.results.keys.key(sent.id)], PATIENCE)

    with pytest.raises(ResultForgottenError):
        next(updates)


def test_no_thread_looks_once_nobody_follows(app: App) -> None:
    updates = iter(app.AsyncResult("nobody").updates(timeout=PATIENCE))
    next(updates)
    with pytest.raises(ResultTimeoutError):
        list(app.AsyncResult("nobody").updates(timeout=0.1))
    del updates
    deadline = clock.Deadline(PATIENCE)

    def is_looking() -> bool:
        return any(thread.name == "upshot-updates" for thread in threading.enumerate())

    while is_looking() and not deadline.expired:
        clock.sleep(0.01)

    assert not is_looking()


def test_a_tight_loop_of_reports_floods_no_store(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    store, stored = MemoryBackend.store, list[str]()

    def noting(
        backend: MemoryBackend, records: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        stored.extend(record.state for record in records)
        return store(backend, records, timeout)

    @app.task
    def tight() -> float:
        began = clock.monotonic()
        for done in range(3000):
            current_task().progress(done)
        return clock.monotonic() - began

    monkeypatch.setattr(MemoryBackend, "store", noting)
    with app.running():
        sent = tight.delay()
        took = sent.get(timeout=PATIENCE)

    assert sent.info == {"current": 2999, "total": None}
    assert stored.count(State.STARTED) <= 2 + took / 0.1 + 1  # its start, a first and a last report


def test_the_last_report_of_a_burst_is_stored_though_the_task_goes_quiet(app: App) -> None:
    go_on = threading.Event()

    @app.task
    def burst() -> None:
        for done in range(10):
            current_task().progress(done)
        assert go_on.wait(PATIENCE)

    with app.running():
        for update in burst.delay().updates(timeout=PATIENCE):
            if update.info == {"current": 9, "total": None} and update.state == State.STARTED:
                go_on.set()

    assert go_on.is_set(), "its last report was seen only when it had ended"


def test_every_report_is_stored_where_the_interval_is_nothing() -> None:
    stored: list[Any] = []
    clerk = Clerk()
    reports: Reports = Reports(stored.append, clerk=clerk, interval=0.0)
    sent: list[Any] = [object() for _ in range(20)]
    for each in sent:
        reports.put(each)
    clerk.close()

    assert stored == sent


def test_nothing_is_stored_after_the_end() -> None:
    stored: list[Any] = []
    clerk, first, second = Clerk(), *[StoredRecord("", b"", 0, 0, None, "", "", "", "")] * 2
    reports = Reports(stored.append, clerk=clerk, interval=0.05)
    reports.put(first)
    reports.put(second)
    reports.close()
    done = threading.Event()
    clerk.later(clock.monotonic() + 0.1, done.set)
    assert done.wait(PATIENCE)
    clerk.close()

    assert stored == [first]


def test_what_a_task_has_put_off_is_not_kept_beyond_its_end() -> None:
    stored = list[StoredRecord]()
    clerk, report = Clerk(), StoredRecord("", b"", 0, 0, None, "", "", "", "")
    reports = Reports(stored.append, clerk=clerk, interval=PATIENCE)
    reports.put(report)
    reports.put(report)  # for the clerk
    reports.close()
    gone = weakref.ref(reports)

    del reports
    gc.collect()

    assert gone() is None
    clerk.close()


def test_a_clerk_goes_on_after_an_error_and_keeps_the_order() -> None:
    clerk, seen, done = Clerk(), list[int](), threading.Event()

    def fail() -> None:
        raise RuntimeError("one task's trouble")

    now = clock.monotonic()
    clerk.later(now + 0.03, done.set)
    clerk.later(now + 0.02, lambda: seen.append(2))
    clerk.later(now, fail)
    clerk.later(now + 0.01, lambda: seen.append(1))

    assert done.wait(PATIENCE)
    assert seen == [1, 2]
    clerk.close()
    clerk.close()
    clerk.later(now, fail)


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(
    app: App, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    shown = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")

    @app.task
    def double(number: int) -> int:
        return 2 * number

    with app.running():
        values = double.map(range(7)).get(timeout=PATIENCE, progress=True)

    assert values == [0, 2, 4, 6, 8, 10, 12]
    assert ("7/7" in shown.getvalue()) is is_terminal
    assert "\x1b[3" not in shown.getvalue(), "NO_COLOR asks for no colours"
    assert ResultSet[int]().get(progress=True) == []


def test_a_bar_takes_nothing_that_is_printed_into_a_file(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, printed = Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("sys.stdout", printed)
    monkeypatch.setenv("TERM", "xterm-256color")

    @app.task
    def chatter(number: int) -> None:
        print("the task says", number)

    with app.running():
        chatter.map([1, 2]).get(timeout=PATIENCE, progress=True)

    assert sorted(printed.getvalue().splitlines()) == ["the task says 1", "the task says 2"]
    assert "2/2" in shown.getvalue()


def test_no_bar_is_shown_where_stderr_was_closed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)

    @app.task
    def double(number: int) -> int:
        return 2 * number

    with app.running():
        assert double.map([1, 2]).get(timeout=PATIENCE, progress=True) == [2, 4]


def test_a_child_of_a_task_reports_though_the_clerk_held_the_lock() -> None:
    stored: list[Any] = []
    clerk, report = Clerk(), StoredRecord("", b"", 0, 0, None, "", "", "", "")
    reports = Reports(stored.append, clerk=clerk, interval=0.0)
    with reports._lock:  # pyright: ignore[reportPrivateUsage]
        child = os.fork()
        if not child:
            reports.put(report)
            os._exit(0 if stored == [report] else 1)
    deadline = clock.Deadline(PATIENCE)
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and not deadline.expired:
        clock.sleep(0.01)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    clerk.close()

    assert ended == (child, 0)
