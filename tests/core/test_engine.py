"""The consumer: what it keeps of a message, of an outcome and of a limit."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from upshot import App, clock, current_task
from upshot.backend import StoredRecord
from upshot.broker import Delivery
from upshot.engine import Consumer, intake
from upshot.errors import TimeLimitExceededError
from upshot.states import State
from upshot_backends.memory.broker import MemoryBroker
from upshot_backends.memory.results import MemoryBackend

LARGE = 2**20


def large_deliveries() -> int:
    """Return how many deliveries of this process are in memory that carry a large message."""
    return sum(
        type(each) is Delivery and len(each.body) >= LARGE  # by type: asking objects may run code
        for each in gc.get_objects()
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_an_idle_worker_keeps_nothing_of_the_message_before(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_OWN_WAIT", 3.0)  # it still waits for the next one when we look
    with App(broker="memory://large", backend="memory://large", no_worker_warning=None) as app:

        @app.task
        def length(text: str) -> int:
            return len(text)

        with app.running(threads=threads):
            assert length.delay("x" * LARGE).get(timeout=30) == LARGE
            deadline = clock.Deadline(2)
            while large_deliveries() and not deadline.expired:
                clock.sleep(0.01)

            assert large_deliveries() == 0


def test_a_worker_that_only_this_process_sends_to_can_be_stopped_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch, waits, seen = MemoryBroker.fetch, list[float](), threading.Event()

    def watched(
        broker: MemoryBroker, queues: Sequence[str], *, wait: float, **rest: Any
    ) -> Sequence[Delivery]:
        waits.append(wait)
        seen.set()
        return fetch(broker, queues, wait=wait, **rest)

    monkeypatch.setattr(MemoryBroker, "fetch", watched)
    with App(broker="memory://soon", backend="memory://soon") as app, app.running():
        assert seen.wait(30)

    assert max(waits) <= 0.1  # seconds, which a test with a worker of its own waits in the end


def test_an_outcome_outlives_an_error_that_no_driver_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, failed = MemoryBackend.store, threading.Event()

    def fails_once(
        backend: MemoryBackend, records: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        if any(each.state == "SUCCESS" for each in records) and not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        return store(backend, records, timeout)

    monkeypatch.setattr(MemoryBackend, "store", fails_once)
    with App(broker="memory://once", backend="memory://once", no_worker_warning=None) as app:

        @app.task
        def answer() -> int:
            return 42

        with app.running():
            assert answer.delay().get(timeout=30) == 42

    assert failed.is_set()


def test_a_limit_is_kept_while_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def beat(*_: Any, **__: Any) -> list[bool]:
        answers.wait(60)
        return []

    with App(broker="memory://mute", backend="memory://mute", no_worker_warning=None) as app:

        @app.task(time_limit=0.2)
        def endless() -> None:
            answers.wait(60)

        handle = endless.delay()
        monkeypatch.setattr(MemoryBroker, "beat", beat)
        try:
            with app.running():
                ended = handle.exception(timeout=30)
                answers.set()
        finally:
            answers.set()

    assert isinstance(ended, TimeLimitExceededError)


def test_a_cold_stop_leaves_nothing_leased_to_a_process_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is given back must not go to the free thread of the very process that gives it back."""
    goes_on, begun = threading.Event(), threading.Event()
    seen: list[tuple[int, int | None]] = []
    fetch = MemoryBroker.fetch

    def slow_fetch(broker: MemoryBroker, queues: Sequence[str], **options: Any) -> Any:
        found = fetch(broker, queues, **options)
        clock.sleep(0.15 if found else 0.0)  # its answer is on its way
        return found

    monkeypatch.setattr(MemoryBroker, "fetch", slow_fetch)
    with App(broker="memory://cold", backend="memory://cold", no_worker_warning=None) as app:

        @app.task
        def endless() -> None:
            begun.set()
            goes_on.wait(60)

        def end_process() -> None:
            clock.sleep(0.1)  # the fetch has taken by now what it is to take
            status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
            seen.append((status["default"].ready, status["default"].leased))
            goes_on.set()

        consumer = Consumer(app.host(), queues=["default"], threads=3, end_process=end_process)
        runs = threading.Thread(target=consumer.run)
        runs.start()
        handles = [endless.delay(), endless.delay()]
        assert begun.wait(30)
        deadline = clock.Deadline(30)
        while {each.state for each in handles} != {State.STARTED} and not deadline.expired:
            clock.sleep(0.01)
        clock.sleep(0.3)  # by now the third thread waits for a message
        consumer.cut_short()
        runs.join(30)

    assert seen == [(2, 0)]


def test_a_consumer_returns_after_its_cold_stop() -> None:
    """Its own end, which is quicker, must not be taken for that of a process with nothing cut."""
    begun, order = threading.Event(), list[str]()
    with App(broker="memory://order", backend="memory://order", no_worker_warning=None) as app:

        @app.task
        def short() -> None:
            begun.set()
            clock.sleep(0.2)

        def end_process() -> None:
            clock.sleep(0.5)
            order.append("cut")

        def run() -> None:
            consumer.run()
            order.append("returned")

        consumer = Consumer(app.host(), queues=["default"], end_process=end_process)
        runs = threading.Thread(target=run)
        runs.start()
        short.delay()
        assert begun.wait(30)
        consumer.cut_short()
        runs.join(30)

    assert order == ["cut", "returned"]


def test_a_task_whose_deliveries_went_astray_is_not_taken_for_one_that_kills(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen server leases a message to whoever has left: no worker has died of that."""
    fetch, astray, ran = MemoryBroker.fetch, list[Delivery](), list[int]()

    def lossy_fetch(broker: MemoryBroker, queues: Sequence[str], **options: Any) -> Any:
        found = fetch(broker, queues, **options)
        if found and len(astray) < 4:
            astray.extend(found)
            return []
        return found

    monkeypatch.setattr(MemoryBroker, "fetch", lossy_fetch)
    url = "memory://astray"
    with App(broker=url, backend=url, worker_lease=1.0, no_worker_warning=None) as app:

        @app.task
        def answer() -> int:
            ran.append(1)
            return 42

        with app.running():
            assert answer.delay().get(timeout=30) == 42

    assert len(astray) == 4
    assert len(ran) == 1


def test_a_revoked_task_without_a_result_is_not_run() -> None:
    url, ran = "memory://revoked", list[str]()
    with App(broker=url, backend=url, no_worker_warning=None) as app:

        @app.task(ignore_result=True)
        def note(what: str) -> None:
            ran.append(what)

        @app.task
        def last() -> None:
            pass

        assert note.delay("revoked").revoke()
        note.delay("kept")
        with app.running():
            last.delay().get(timeout=30)

    assert ran == ["kept"]


def test_a_traceback_begins_with_the_task() -> None:
    app = App(broker="memory://", backend="memory://")

    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("as asked")

    @app.task(name="fail_later")
    async def fail_later() -> None:
        raise ValueError("as asked")

    with app, app.running():
        for handle in (fail.delay(), fail_later.delay()):
            handle.exception(timeout=10)
            lines = (handle.traceback or "").splitlines()

            assert lines[1].endswith(f"in {handle.name}"), lines


def test_a_task_can_tell_which_worker_runs_it() -> None:
    app = App(broker="memory://", backend="memory://")

    @app.task(name="who")
    def who() -> str:
        return current_task().worker

    assert who() == ""
    with app, app.running():
        handle = who.delay()
        assert handle.get(timeout=10) == handle.worker
