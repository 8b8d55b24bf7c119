"""Apps, tasks and handles on the memory service, with a worker in this process."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from upshot import App, ResultSet, RetryPolicy, State, TaskContext, current_task
from upshot.errors import (
    ConfigError,
    EncodeError,
    InvalidTaskIdError,
    ResultForgottenError,
    ResultTimeoutError,
    ServiceClosedError,
    ServiceRejectedError,
    TaskError,
    TaskRevokedError,
)
from upshot.origin import Origin
from upshot_backends.memory.results import MemoryBackend
from upshot_conformance.concurrency import start
from upshot_conformance.records import success


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class ShopError(Exception):
    def __init__(self, code: int, *, shelf: str) -> None:
        super().__init__(code)
        self.shelf = shelf


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose services nobody else sees."""
    url = f"memory://{uuid.uuid4().hex}"
    with App("shop", broker=url, backend=url) as app:
        yield app


def test_a_task_is_called_here_or_there(app: App) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.running():
        assert add(1, 2) == 3
        assert add.delay(1, 2).get(timeout=10) == 3
        assert app.send_task(add.name, [2], {"y": 3}).get(timeout=10) == 5


def test_a_coroutine_is_a_task_too(app: App) -> None:
    @app.task
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    async def main() -> tuple[int, list[int]]:
        one, many = add.delay(1, 2), add.map([(1, 1), (2, 2)])
        return await one, await many

    with app.running():
        assert asyncio.run(main()) == (3, [2, 4])


def test_an_exception_comes_home_with_its_attributes_every_time(app: App) -> None:
    @app.task
    def fail() -> None:
        raise ShopError(7, shelf="tea")

    with app.running():
        handle = fail.delay()
        first = handle.exception(timeout=10)
        with pytest.raises(ShopError) as raised:
            handle.get(timeout=10)

    assert isinstance(first, ShopError)
    assert raised.value is not first
    assert (raised.value.args, raised.value.shelf) == ((7,), "tea")
    assert "test_app.py" in (handle.traceback or "")
    assert "execution.py" not in (handle.traceback or "")


def test_dataclasses_travel_by_annotation(app: App) -> None:
    @app.task
    def mirror(point: Point) -> list[Point]:
        assert isinstance(point, Point)
        return [Point(point.y, point.x)]

    with app.running():
        assert mirror.delay(Point(1, 2)).get(timeout=10) == [Point(2, 1)]


def test_a_result_that_cannot_be_encoded_fails_and_names_the_place(app: App) -> None:
    @app.task
    def bad() -> Any:
        return {"rows": [1, 2, 3, object()]}

    with app.running():
        error = bad.delay().get(timeout=10, propagate=False)

    assert isinstance(error, EncodeError)
    assert error.path == "result['rows'][3]"


def test_an_argument_that_cannot_be_encoded_is_refused_at_the_call(app: App) -> None:
    @app.task
    def take(value: object) -> None: ...

    with pytest.raises(EncodeError) as raised:
        take.delay({"a": [object()]})

    assert raised.value.path == "args[0]['a'][0]"


def test_retries_are_counted_and_end(app: App) -> None:
    runs: list[int] = []

    @app.task(autoretry_for=(ValueError,), max_retries=2, retry_backoff=0.01)
    def fragile() -> None:
        runs.append(current_task().attempt)
        raise ValueError("again")

    with app.running():
        handle = fragile.delay()
        with pytest.raises(ValueError, match="again"):
            handle.get(timeout=10)

    assert runs == [1, 2, 3]
    assert handle.attempts == 3


def test_one_call_can_have_a_retry_policy_of_its_own(app: App) -> None:
    runs: list[tuple[int, int | None]] = []

    @app.task(bind=True)
    def fragile(context: TaskContext) -> str:
        runs.append((context.retries, context.max_retries))
        if len(runs) < 3:
            context.retry(countdown=0.01, reason=OSError("not yet"))
        return "done"

    with app.running():
        patient = fragile.apply_async(retry=RetryPolicy(max_retries=5))
        assert patient.get(timeout=10) == "done"
        assert runs == [(0, 5), (1, 5), (2, 5)]
        runs.clear()
        strict = fragile.apply_async(retry=RetryPolicy(max_retries=0))
        assert isinstance(strict.exception(timeout=10), OSError)
        assert runs == [(0, 0)]


def test_progress_is_seen_and_outlives_the_end(app: App) -> None:
    go_on = threading.Event()

    @app.task
    def count() -> int:
        current_task().progress(1, 2, step="half")
        go_on.wait(10)
        raise ShopError(1, shelf="x")

    with app.running():
        handle = count.delay()
        deadline = time.monotonic() + 10
        while handle.info is None and time.monotonic() < deadline:
            time.sleep(0.005)
        seen = handle.state, handle.info
        go_on.set()
        handle.exception(timeout=10)

    assert seen == (State.STARTED, {"current": 1, "total": 2, "step": "half"})
    assert handle.info == {"current": 1, "total": 2, "step": "half"}


def test_time_stamps_are_aware_and_in_order(app: App) -> None:
    @app.task
    def nothing() -> None: ...

    with app.running():
        handle = nothing.delay()
        assert handle.get(timeout=10) is None

    stamps = [handle.queued_at, handle.started_at, handle.finished_at]
    moments = [stamp for stamp in stamps if stamp is not None]
    assert len(moments) == 3
    assert moments == sorted(moments)
    assert all(moment.utcoffset() == timedelta(0) for moment in moments)


def test_countdown_and_expiry_are_kept(app: App) -> None:
    @app.task
    def when() -> float:
        return time.time()

    sent = time.time()
    late = when.apply_async(countdown=0.3)
    stale = when.apply_async(expires=0.001)
    past = when.apply_async(eta=datetime.now(UTC) - timedelta(hours=1))
    time.sleep(0.01)
    with app.running():
        assert late.get(timeout=10) >= sent + 0.3
        assert past.get(timeout=10) >= sent
        with pytest.raises(TaskRevokedError) as raised:
            stale.get(timeout=10)

    assert "expired" in str(raised.value.__cause__)


def test_larger_priorities_run_first(app: App) -> None:
    order: list[int] = []

    @app.task
    def note(number: int) -> None:
        order.append(number)

    handles = [note.apply_async([n], priority=n) for n in (0, 9, 5)]
    with app.running(threads=1):
        ResultSet(handles).get(timeout=10)

    assert order == [9, 5, 0]


def test_headers_and_names_reach_the_task(app: App) -> None:
    @app.task(name="other.name", queue="side")
    def look() -> list[Any]:
        context = current_task()
        return [context.name, context.queue, context.headers]

    with app.running():
        handle = look.apply_async(headers={"trace": "abc"})
        assert handle.get(timeout=10) == ["other.name", "side", {"trace": "abc"}]


def test_ignored_results_leave_no_record(app: App) -> None:
    done = threading.Event()

    @app.task(ignore_result=True)
    def quiet() -> None:
        done.set()

    with app.running():
        handle = quiet.delay()
        assert done.wait(10)

    assert handle.state == State.PENDING


def test_a_waiting_task_and_an_unknown_one_are_told_apart(app: App) -> None:
    @app.task
    def idle() -> None: ...

    handle = idle.delay()

    assert handle.state == State.QUEUED
    assert handle.attempts == 0
    assert app.AsyncResult("nobody").state == State.PENDING
    with pytest.raises(ResultTimeoutError, match="it is QUEUED for"):
        handle.get(timeout=0)


@pytest.mark.alone
def test_timeouts_are_neither_early_nor_swallowed(app: App) -> None:
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        app.AsyncResult("nobody").get(timeout=0.2)

    assert 0.2 <= time.monotonic() - began < 1.0
    with pytest.raises(ValueError, match="timeout"):
        app.AsyncResult("nobody").get(timeout=-1)


def test_forget_ends_a_wait_and_a_handle_forgets_as_a_context(app: App) -> None:
    @app.task
    def idle() -> None: ...

    ended: list[BaseException] = []

    def wait() -> None:
        try:
            handle.get(timeout=10)
        except ResultForgottenError as exc:
            ended.append(exc)

    with idle.delay() as handle:
        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 10
        while not app.results.stats()["waiters"] and time.monotonic() < deadline:
            time.sleep(0.002)
    thread.join(10)

    assert len(ended) == 1
    assert handle.state == State.PENDING


def test_callbacks_run_once_also_for_what_has_ended(app: App) -> None:
    @app.task
    def one() -> int:
        return 1

    seen: list[int] = []
    both = threading.Semaphore(0)

    def note(handle: Any) -> None:
        seen.append(handle.get(timeout=0))
        both.release()

    with app.running():
        handle = one.delay()
        handle.add_done_callback(note)
        handle.get(timeout=10)
        assert both.acquire(timeout=10)
        handle.add_done_callback(note)
        assert both.acquire(timeout=10)

    assert seen == [1, 1]


def test_a_handle_finds_the_one_of_two_apps_that_is_open() -> None:
    """Both have the same address."""
    with App(broker="memory://", backend="memory://twice") as first:
        data = pickle.dumps(first.AsyncResult("any"))
        second = App(broker="memory://", backend="memory://twice")
        second.AsyncResult("any")
        second.close()
        del second
        gc.collect()

        assert pickle.loads(data).state == "PENDING"


@pytest.mark.parametrize("many", [False, True])
def test_a_long_wait_outlives_a_refusal_when_it_asks_for_workers(
    many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one wait, although it stops for a moment to see whether a worker is there."""
    refuses, load = threading.Event(), MemoryBackend.load

    def refusing_load(
        backend: MemoryBackend, keys: Sequence[str], timeout: float
    ) -> Sequence[bytes | None]:
        if refuses.is_set():
            raise ServiceRejectedError("no rights for now")
        return load(backend, keys, timeout)

    monkeypatch.setattr(MemoryBackend, "load", refusing_load)
    url = "memory://refuses"
    with App(broker=url, backend=url, no_worker_warning=0.3) as app:
        handle = app.send_task("anything")
        wait = app.ResultSet([handle.id]).get if many else handle.get
        waiting = start(lambda: wait(timeout=30))
        time.sleep(0.1)
        refuses.set()
        time.sleep(0.6)
        refuses.clear()
        app.results.store(success(handle.id, "home"))

        assert waiting.result(30) == (["home"] if many else "home")


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("left", [0.0, 0.01])
def test_what_ends_while_a_wait_asks_for_workers_is_not_missed(
    many: bool, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little time that leaves."""
    patience = 0.2
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, no_worker_warning=patience) as app:
        handle = app.send_task("anything")

        def ask(origin: Origin, *_: object) -> None:
            app.results.store(success(handle.id, "home"))
            time.sleep(0.1 - left)

        monkeypatch.setattr(Origin, "warn_if_no_worker", ask)
        wait = app.ResultSet([handle.id]).get if many else handle.get

        assert wait(timeout=patience + 0.1) == (["home"] if many else "home")


def test_a_set_that_waited_in_vain_says_for_how_long() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, no_worker_warning=0.1) as app:
        handles = app.ResultSet([app.send_task("anything").id])
        with pytest.raises(ResultTimeoutError, match=r"within 0\.25 seconds"):
            handles.get(timeout=0.25)


def test_a_handle_pickles_without_sockets_and_finds_its_app_again(app: App) -> None:
    @app.task
    def one() -> int:
        return 1

    with app.running():
        handle = one.delay()
        data = pickle.dumps(handle)
        assert pickle.loads(data).get(timeout=10) == 1
    assert pickle.loads(data) == handle


def test_a_result_set_reads_in_order_and_counts(app: App) -> None:
    @app.task
    def square(n: int) -> int:
        if n == 3:
            raise ShopError(n, shelf="three")
        return n * n

    with app.running():
        results = square.map(range(5))
        values = results.get(timeout=10, propagate=False)
        with pytest.raises(ShopError):
            results.get(timeout=10)

    assert values[:3] + values[4:] == [0, 1, 4, 16]
    assert isinstance(values[3], ShopError)
    assert (results.completed_count(), results.ready()) == (5, True)
    assert (results.successful(), results.failed()) == (False, True)
    results.forget()
    assert results.completed_count() == 0


def test_outstanding_results_are_known_until_read_or_forgotten(app: App) -> None:
    @app.task
    def one() -> int:
        return 1

    with app.running():
        read, forgotten, left = one.delay(), one.delay(), one.delay()
        read.get(timeout=10)
        forgotten.forget()

    assert app.outstanding() == [left]


def test_an_unread_result_is_reported_if_asked_for() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with App("shop", broker=url, backend=url, warn_unreleased_results=True) as app:

        @app.task
        def one() -> int:
            return 1

        with pytest.warns(ResourceWarning, match="neither read nor forgotten"):
            one.delay()


def test_a_closed_app_ends_its_waits(app: App) -> None:
    handle = app.AsyncResult("nobody")
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            handle.get(timeout=10)
        except ServiceClosedError as exc:
            ended.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.monotonic() + 10
    while not app.results.stats()["waiters"] and time.monotonic() < deadline:
        time.sleep(0.002)
    app.close()
    thread.join(10)

    assert len(ended) == 1


def test_what_is_wrong_is_said_at_once(app: App) -> None:
    @app.task
    def one() -> int:
        return 1

    with pytest.raises(InvalidTaskIdError):
        one.apply_async(task_id="a\nb")
    with pytest.raises(ConfigError, match="0 to 9"):
        one.apply_async(priority=10)
    with pytest.raises(ConfigError, match="not both"):
        one.apply_async(countdown=1, eta=datetime.now(UTC))
    with pytest.raises(ConfigError, match="zone"):
        one.apply_async(eta=datetime(2030, 1, 1))
    with pytest.raises(ConfigError, match="no option"):
        app.task(retires=3)  # type: ignore[call-overload]  # that is the mistake
    with pytest.raises(TaskError, match="no task is running"):
        current_task()


def test_two_tasks_of_one_name_are_refused(app: App) -> None:
    @app.task(name="same")
    def one() -> int:
        return 1

    with pytest.raises(ConfigError, match="two tasks"):

        @app.task(name="same")
        def two() -> int:
            return 2


def test_a_wait_without_a_worker_says_what_to_type(caplog: pytest.LogCaptureFixture) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with App("shop", broker=url, backend=url, no_worker_warning=0.05) as app:

        @app.task
        def idle() -> None: ...

        handle = idle.delay()
        for _ in range(2):
            with pytest.raises(ResultTimeoutError):
                handle.get(timeout=0.2)

    hints = [record.getMessage() for record in caplog.records if "no worker" in record.message]
    assert len(hints) == 1
    assert "upshot -A shop worker -Q default" in hints[0]


def test_a_cancelled_wait_leaves_nothing_and_the_next_one_is_right(app: App) -> None:
    @app.task
    def echo(n: int) -> int:
        return n

    async def main() -> list[int]:
        handles = [echo.delay(n) for n in range(50)]
        for handle in handles[::2]:
            waiting = asyncio.ensure_future(handle.aget())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with app.running():
            return [await handle for handle in handles]

    assert asyncio.run(main()) == list(range(50))
    assert app.results.stats()["waiters"] == 0


def test_sixty_four_waiters_on_one_id_all_wake(app: App) -> None:
    @app.task
    def one() -> int:
        return 1

    handle, values = one.delay(), list[int]()
    threads = [
        threading.Thread(target=lambda: values.append(handle.get(timeout=20))) for _ in range(64)
    ]
    for thread in threads:
        thread.start()
    with app.running():
        for thread in threads:
            thread.join(20)

    assert values == [1] * 64
    assert app.results.stats()["waiters"] == 0


def test_a_task_may_wait_for_another_and_callbacks_for_results(app: App) -> None:
    @app.task
    def inner() -> int:
        return 20

    @app.task
    def outer() -> int:
        return inner.delay().get(timeout=10) + 1

    seen: list[int] = []
    done = threading.Event()

    def after(handle: Any) -> None:
        seen.append(inner.delay().get(timeout=10) + handle.get())
        done.set()

    with app.running(threads=2):
        handle = outer.delay()
        handle.add_done_callback(after)
        assert done.wait(10)

    assert seen == [41]
