"""Streams: what a task yields, on its way to whoever reads it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from upshot import App, State, clock, current_task
from upshot.backend import StoredRecord
from upshot.errors import (
    ConfigError,
    EncodeError,
    PayloadTooLargeError,
    ResultForgottenError,
    ResultTimeoutError,
    SoftTimeLimitExceededError,
    StreamBrokenError,
    StreamTooLongError,
    TaskRevokedError,
    TimeLimitExceededError,
    UnsupportedError,
)
from upshot_backends.memory.results import MemoryBackend

PATIENCE = 20.0
"""Seconds: what takes longer is a failure."""

MakeApp = Callable[..., App]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Make apps over memory of their own, with a worker."""
    opened: list[Any] = []

    def make(threads: int = 1, **settings: Any) -> App:
        url = f"memory://{uuid.uuid4().hex}"
        app = App(broker=url, backend=url, no_worker_warning=None, **settings)
        app.task(count)
        app.task(wait_and_count)
        running = app.running(threads=threads)
        running.__enter__()
        opened.append((app, running))
        return app

    yield make
    for app, running in opened:
        running.__exit__(None, None, None)
        app.close()


def count(items: int) -> Iterator[int]:
    """Yield so many numbers."""
    yield from range(items)


gates: dict[str, threading.Event] = {}
"""What tasks wait for, by name; a closed generator sets its own."""


def wait_and_count(gate: str, items: int) -> Iterator[int]:
    """Yield a number, wait for the gate, and yield the others; then open the gate 'closed'."""
    try:
        yield 0
        assert gates[gate].wait(PATIENCE)
        for number in range(1, items):
            yield number
            clock.sleep(0.005)
    finally:
        gates[gate + " closed"].set()


@pytest.fixture
def gate() -> str:
    """The name of a gate, which is shut."""
    name = uuid.uuid4().hex
    gates[name], gates[name + " closed"] = threading.Event(), threading.Event()
    return name


def taken(items: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    """Return what an iteration yields, and what it raises in the end."""
    seen: list[Any] = []
    try:
        for item in items:
            seen.append(item)  # noqa: PERF402 - what came before the error is the point
    except Exception as exc:
        return seen, exc
    return seen, None


def send(app: App, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Send a task of this module."""
    return app.send_task(f"{__name__}.{function.__name__}", args, **options)


def test_items_come_in_order_and_the_value_is_what_was_returned(make_app: MakeApp) -> None:
    app = make_app()

    @app.task
    def halves() -> Generator[float, None, str]:
        yield 0.5
        yield 0.25
        return "over"

    sent = halves.delay()

    assert list(sent.stream(timeout=PATIENCE)) == [0.5, 0.25]
    assert sent.get(timeout=PATIENCE) == "over"
    assert send(app, count, 3).get(timeout=PATIENCE) is None


def test_a_thousand_batches_are_whole(make_app: MakeApp) -> None:
    app = make_app()
    sent = send(app, count, 5003)

    assert list(sent.stream(timeout=PATIENCE)) == list(range(5003))
    assert list(sent.stream(4999, timeout=0)) == [4999, 5000, 5001, 5002]
    assert list(sent.stream(5003, timeout=0)) == []
    assert list(sent.stream(9000, timeout=0)) == []


def test_a_task_that_yields_nothing_or_is_no_generator_has_no_items(make_app: MakeApp) -> None:
    app = make_app()

    @app.task
    def plain() -> list[int]:
        return [1, 2]

    assert list(send(app, count, 0).stream(timeout=PATIENCE)) == []
    assert list(plain.delay().stream(timeout=PATIENCE)) == []


def test_an_item_is_read_while_the_task_runs(make_app: MakeApp, gate: str) -> None:
    sent = send(make_app(), wait_and_count, gate, 5)
    items = iter(sent.stream(timeout=PATIENCE))

    assert next(items) == 0
    assert sent.state == State.STARTED
    gates[gate].set()
    assert list(items) == [1, 2, 3, 4]


def test_a_reader_that_gives_up_can_go_on_where_it_was(make_app: MakeApp, gate: str) -> None:
    sent = send(make_app(), wait_and_count, gate, 4)
    seen, error = taken(sent.stream(timeout=0.5))
    gates[gate].set()

    assert seen == [0]
    assert isinstance(error, ResultTimeoutError)
    assert "stream(start=1) goes on" in str(error)
    assert list(sent.stream(len(seen), timeout=PATIENCE)) == [1, 2, 3]


def test_many_readers_of_threads_and_coroutines_see_the_same(make_app: MakeApp, gate: str) -> None:
    sent = send(make_app(), wait_and_count, gate, 40)
    seen: list[list[int]] = []

    async def read_all() -> None:
        async def read() -> None:
            seen.append([item async for item in sent.stream(timeout=PATIENCE)])

        await asyncio.gather(*(read() for _ in range(5)))

    threads = [
        threading.Thread(target=lambda: seen.append(list(sent.stream(timeout=PATIENCE))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    gates[gate].set()
    asyncio.run(read_all())
    for thread in threads:
        thread.join(PATIENCE)

    assert seen == [list(range(40))] * 10


def test_a_failure_comes_after_the_items_before_it(make_app: MakeApp) -> None:
    app = make_app()

    @app.task
    def fails() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no third")

    sent = fails.delay()
    for _ in range(2):
        seen, error = taken(sent.stream(timeout=PATIENCE))
        assert seen == [1, 2]
        assert repr(error) == "ValueError('no third')"
    assert "fails" in (sent.traceback or "")


def test_an_item_that_cannot_be_encoded_or_is_too_long_ends_the_task(
    make_app: MakeApp, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(MemoryBackend.capabilities, max_record_bytes=2**16)
    monkeypatch.setattr(MemoryBackend, "capabilities", small)
    app = make_app()

    @app.task
    def strange() -> Iterator[object]:
        try:
            yield 1
            yield {"part": object()}
        finally:
            gates[gate].set()

    @app.task
    def long() -> Iterator[str]:
        yield "x" * 2**16

    with pytest.raises(EncodeError, match=r"item\['part'\]"):
        list(strange.delay().stream(timeout=PATIENCE))
    assert gates[gate].is_set()
    with pytest.raises(PayloadTooLargeError):
        list(long.delay().stream(timeout=PATIENCE))


def test_a_task_that_yields_too_much_fails_and_its_items_stay(make_app: MakeApp) -> None:
    app = make_app(stream_max_items=10)

    seen, error = taken(send(app, count, 11).stream(timeout=PATIENCE))

    assert seen == list(range(10))
    assert isinstance(error, StreamTooLongError)
    assert "10 items" in str(error)
    assert list(send(app, count, 10).stream(timeout=PATIENCE)) == list(range(10))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_soft_limit_ends_a_generator_in_its_own_frame(
    make_app: MakeApp, gate: str, is_async: bool
) -> None:
    app = make_app()

    @app.task(soft_time_limit=0.3)
    def slow() -> Iterator[int]:
        try:
            yield 1
            while True:
                clock.sleep(0.01)
        finally:
            gates[gate].set()

    @app.task(soft_time_limit=0.3)
    async def slow_async() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(PATIENCE)
        finally:
            gates[gate].set()

    items = iter((slow_async if is_async else slow).delay().stream(timeout=PATIENCE))
    assert next(items) == 1
    with pytest.raises(SoftTimeLimitExceededError):
        next(items)
    assert gates[gate].wait(PATIENCE)


def test_a_hard_limit_leaves_what_was_yielded(make_app: MakeApp, gate: str) -> None:
    app = make_app(threads=2)
    sent = send(app, wait_and_count, gate, 3, time_limit=0.5)
    items = iter(sent.stream(timeout=PATIENCE))

    assert next(items) == 0
    with pytest.raises(TimeLimitExceededError):
        next(items)
    gates[gate].set()
    assert gates[gate + " closed"].wait(PATIENCE)
    seen, error = taken(sent.stream(timeout=PATIENCE))
    assert seen == [0], "what a task yields after its end is kept"
    assert isinstance(error, TimeLimitExceededError)


def test_a_revoked_task_is_closed_at_its_next_items(make_app: MakeApp, gate: str) -> None:
    sent = send(make_app(), wait_and_count, gate, 100_000)
    items = iter(sent.stream(timeout=PATIENCE))
    assert next(items) == 0

    assert sent.revoke()
    gates[gate].set()

    assert gates[gate + " closed"].wait(PATIENCE), "its finally block did not run"
    with pytest.raises(TaskRevokedError):
        list(items)
    assert sent.state == State.REVOKED


def test_forgetting_while_it_runs_leaves_no_item(make_app: MakeApp, gate: str) -> None:
    app = make_app()
    sent = send(app, wait_and_count, gate, 100_000)
    items = iter(sent.stream(timeout=PATIENCE))
    assert next(items) == 0
    gates[gate].set()
    assert [next(items) for _ in range(30)] == list(range(1, 31))

    sent.forget()

    assert gates[gate + " closed"].wait(PATIENCE), "the task runs on"
    with pytest.raises(ResultForgottenError):
        list(items)
    with pytest.raises(ResultForgottenError):
        sent.get(timeout=PATIENCE)
    keys = list(app.results.backend.scan(app.settings.namespace, PATIENCE))
    assert keys == [f"{app.settings.namespace}:{sent.id}"], "only the end of the task is left"
    sent.forget()
    assert list(app.results.backend.scan(app.settings.namespace, PATIENCE)) == []


def test_forgetting_while_it_runs_leaves_no_file(
    make_app: MakeApp, gate: str, tmp_path: Path
) -> None:
    app = make_app(result_offload=f"file://{tmp_path}", result_offload_threshold=0)
    sent = send(app, wait_and_count, gate, 100_000)
    items = iter(sent.stream(timeout=PATIENCE))
    assert next(items) == 0
    sent.forget()
    gates[gate].set()

    assert gates[gate + " closed"].wait(PATIENCE), "the task runs on"
    with pytest.raises(ResultForgottenError):
        sent.get(timeout=PATIENCE)

    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 1, "only the end of the task is"


def test_forgetting_a_long_stream_leaves_nothing(make_app: MakeApp) -> None:
    app = make_app()
    handles = [send(app, count, items) for items in (0, 1, 16, 17, 3333)]
    for handle in handles:
        handle.get(timeout=PATIENCE)
        handle.forget()

    assert list(app.results.backend.scan("", PATIENCE)) == []


def test_progress_of_a_forgotten_stream_brings_nothing_back(make_app: MakeApp, gate: str) -> None:
    app = make_app(task_progress_interval=0)
    reported = threading.Event()

    @app.task
    def reports() -> Iterator[int]:
        yield 1
        assert gates[gate].wait(PATIENCE)
        current_task().progress(1)
        reported.set()
        assert gates[gate + " closed"].wait(PATIENCE)

    sent = reports.delay()
    assert next(iter(sent.stream(timeout=PATIENCE))) == 1
    sent.forget()
    gates[gate].set()
    assert reported.wait(PATIENCE)

    assert sent.state == State.PENDING
    gates[gate + " closed"].set()


def test_a_hole_is_an_error_and_never_skipped(make_app: MakeApp) -> None:
    app = make_app()
    sent = send(app, count, 30)
    sent.get(timeout=PATIENCE)
    (key,) = app.results.keys.items(sent.id, (20,))
    app.results.backend.delete([key], PATIENCE)

    seen, error = taken(sent.stream(timeout=PATIENCE))
    assert seen == list(range(20))
    assert isinstance(error, StreamBrokenError)
    assert error.index == 20
    assert list(sent.stream(21, timeout=0)) == list(range(21, 30))


def test_a_second_attempt_replaces_no_item_and_loses_none(make_app: MakeApp) -> None:
    app = make_app()
    attempts: list[int] = []

    @app.task(autoretry_for=(ValueError,), retry_backoff=0, retry_jitter=False)
    def wavers() -> Iterator[str]:
        attempts.append(len(attempts) + 1)
        for number in range(6 - 2 * len(attempts)):  # four items at first, then two
            yield f"{number} of attempt {len(attempts)}"
        if len(attempts) == 1:
            raise ValueError("again")

    sent = wavers.delay()
    first = [f"{number} of attempt 1" for number in range(4)]

    assert list(sent.stream(timeout=PATIENCE)) == first
    assert attempts == [1, 2]
    assert list(sent.stream(timeout=0)) == first


def test_a_store_that_is_away_pauses_the_task(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, store = make_app(operation_timeout=0.2), MemoryBackend.store
    refused = threading.Event()
    made: list[int] = []

    def away(
        backend: MemoryBackend, records: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        if any("+" in record.key for record in records) and not refused.is_set():
            raise ConnectionError("away")
        return store(backend, records, timeout)

    @app.task
    def fast() -> Iterator[int]:
        for number in range(3000):
            made.append(number)
            yield number

    monkeypatch.setattr(MemoryBackend, "store", away)
    monkeypatch.setattr(
        MemoryBackend,
        "driver_errors",
        type(MemoryBackend.driver_errors)(transient=(ConnectionError,)),
    )
    sent = fast.delay()
    deadline = clock.Deadline(PATIENCE)
    while not made and not deadline.expired:
        clock.sleep(0.01)
    clock.sleep(0.6)  # three times what a call may take: it has tried again by now
    assert len(made) <= 1001, "what cannot be stored fills the memory"
    refused.set()

    assert list(sent.stream(timeout=PATIENCE)) == list(range(3000))


def test_the_last_items_are_stored_though_the_task_goes_quiet(make_app: MakeApp, gate: str) -> None:
    app = make_app()

    @app.task
    def burst() -> Iterator[int]:
        yield from range(5)  # the first is stored at once, the others have to wait a little
        assert gates[gate].wait(PATIENCE)

    items = iter(burst.delay().stream(timeout=PATIENCE))
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    gates[gate].set()
    assert list(items) == []


def test_an_ignored_task_runs_through_and_keeps_nothing(make_app: MakeApp, gate: str) -> None:
    app = make_app()
    gates[gate].set()

    send(app, wait_and_count, gate, 3, ignore_result=True)

    assert gates[gate + " closed"].wait(PATIENCE)
    assert list(app.results.backend.scan("", PATIENCE)) == []


@dataclass
class Point:
    """What a stream may hold."""

    x: int
    y: int


def test_items_and_value_take_the_shape_of_the_annotation(make_app: MakeApp) -> None:
    app = make_app()

    @app.task
    def points() -> Generator[Point, None, Point]:
        yield Point(1, 2)
        return Point(3, 4)

    @app.task
    async def points_async() -> AsyncIterator[Point]:
        yield Point(5, 6)

    sent = points.delay()
    assert list(sent.stream(timeout=PATIENCE)) == [Point(1, 2)]
    assert sent.get(timeout=PATIENCE) == Point(3, 4)
    assert list(points_async.delay().stream(timeout=PATIENCE)) == [Point(5, 6)]


def test_a_direct_call_is_a_generator_that_knows_its_task() -> None:
    app = App(broker="memory://", backend="memory://")
    closed: list[str] = []

    @app.task(name="direct")
    def direct(items: int) -> Generator[str, None, int]:
        try:
            for _ in range(items):
                yield current_task().name
            return items
        finally:
            closed.append(current_task().name)

    @app.task(name="direct_async")
    async def direct_async() -> AsyncIterator[str]:
        yield current_task().name

    async def all_of_it() -> list[str]:
        return [name async for name in direct_async()]

    assert list(direct(2)) == ["direct", "direct"]
    items = direct(2)
    next(items)
    items.close()
    assert closed == ["direct", "direct"]
    assert asyncio.run(all_of_it()) == ["direct_async"]


@pytest.mark.parametrize("start", [-1, "1", 1.5, None])
def test_a_start_that_is_no_index_is_refused_at_once(make_app: MakeApp, start: Any) -> None:
    with pytest.raises(ConfigError, match="start is an index"):
        make_app().AsyncResult("any").stream(start)


def test_a_backend_without_streams_refuses_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = replace(MemoryBackend.capabilities, streams=False)
    monkeypatch.setattr(MemoryBackend, "capabilities", refusing)
    with App(broker="memory://no", backend="memory://no", no_worker_warning=None) as app:
        counting = app.task(count)

        with pytest.raises(UnsupportedError, match="keeps no streams"):
            counting.delay(1)
        with pytest.raises(UnsupportedError):
            app.AsyncResult("any").stream()
        counting.apply_async((1,), ignore_result=True)
        with app.running(), App(broker="memory://no", backend="memory://no") as other:
            sent = other.send_task(counting.name, (1,))
            with pytest.raises(UnsupportedError):
                sent.get(timeout=PATIENCE)


def test_an_abandoned_reader_leaves_nothing_awaited(make_app: MakeApp, gate: str) -> None:
    app = make_app()
    sent = send(app, wait_and_count, gate, 2)
    for item in sent.stream(timeout=PATIENCE):
        assert item == 0
        break
    with pytest.raises(ResultTimeoutError):
        list(sent.stream(1, timeout=0.2))
    deadline = clock.Deadline(PATIENCE)
    while app.results.stats()["waiters"] and not deadline.expired:
        clock.sleep(0.01)

    assert app.results.stats()["waiters"] == 0
    gates[gate].set()
