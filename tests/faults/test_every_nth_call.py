"""The life of a task, again and again; each time another call of a service fails.

Both sides are in this process: the caller's (submit, wait, get, forget) and a worker's. A call
fails before it has done anything, or its answer is lost; once, which nobody may notice, or for
longer than an operation may take.
"""

from __future__ import annotations

import pickle
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pytest

from tests.endtoend.patience import PATIENCE
from upshot import App, State, clock, current_task
from upshot.errors import ServiceError, ServiceUnavailableError
from upshot.request import Request

from .conftest import Sized
from .failing import HOOKS, Fault, FaultyService, faulty_services
from .scoreboard import Score

__all__ = ["faulty_services"]  # a fixture

T = TypeVar("T")

BRIEFLY = 0.1  # seconds that one call may take, its retries included
OUTAGE = 0.5  # seconds: longer than that
LEASE = 1.0  # seconds after which a message that was not settled comes again
LIVES = 16  # at a time: most of each is waiting


class Life:
    """One task from its submission until it is forgotten.

    Args:
        service: where it is sent, run and recorded.
    """

    def __init__(self, service: FaultyService) -> None:
        self.service = service
        self.task_id = uuid.uuid4().hex
        self.bodies = 0
        self.called = threading.Event()
        self.errors = 0
        self.named: set[tuple[str, ...]] = set()

    def lived(self, app: App) -> None:
        """Live it; AssertionError if anything is not as promised."""

        @app.task(name="work", bind=False, max_retries=1)
        def work(value: str) -> str:
            self.bodies += 1
            context = current_task()
            context.progress(context.attempt, 2)
            if not context.retries:
                context.retry(countdown=0)
            return value

        with app.running(threads=1):
            handle = self.patiently(lambda: work.apply_async(["mine"], task_id=self.task_id))
            handle.add_done_callback(lambda handle: self.called.set())
            assert self.patiently(lambda: handle.get(timeout=PATIENCE)) == "mine"
            assert self.patiently(lambda: handle.get(timeout=PATIENCE)) == "mine"
            assert self.patiently(lambda: handle.state) == State.SUCCESS
            assert self.called.wait(PATIENCE), "the callback was not called"
            self.settled(app)
            assert self.patiently(lambda: handle.state) == State.SUCCESS
            self.patiently(handle.forget)
            assert self.patiently(lambda: handle.state) == State.PENDING
            assert app.results.stats()["waiters"] == 0
            assert self.named <= {(), (self.task_id,)}

    def patiently(self, call: Callable[[], T]) -> T:
        """Call until the service is there, as a careful caller would."""
        deadline = clock.Deadline(PATIENCE)
        while True:
            try:
                return call()
            except ServiceUnavailableError as exc:
                self.errors += 1
                self.named.add(exc.task_ids)
                assert not deadline.expired
                clock.sleep(0.02)

    def settled(self, app: App) -> None:
        """Wait until no message is left, neither in the queue nor at the worker."""
        deadline = clock.Deadline(PATIENCE)
        while not deadline.expired:
            try:
                status = app.broker.call(lambda b, seconds: b.survey(["default"], seconds))
            except ServiceError:
                continue
            left = status["default"]
            if not (left.ready or left.delayed or left.leased):
                assert not left.dead, "the message was buried"
                return
            clock.sleep(0.01)
        pytest.fail("a message was never settled")


def open_app(service: FaultyService, operation_timeout: float) -> App:
    """Return an app on that service."""
    return App(
        "lives",
        broker=service.url,
        backend=service.url,
        operation_timeout=operation_timeout,
        worker_lease=LEASE,
        task_max_deliveries=1000,  # a busy machine may let a lease run out
        no_worker_warning=None,
    )


def live(fault: Fault | None, *, is_joined: bool) -> Life:
    """Live one life with `fault`, in an app of its own."""
    service = FaultyService(uuid.uuid4().hex, fault, is_joined=is_joined)
    life = Life(service)
    with open_app(service, BRIEFLY if fault and fault.seconds else PATIENCE) as app:
        life.lived(app)
    return life


@pytest.mark.parametrize("loses_answer", [True, False])
def test_who_sends_again_what_may_have_been_sent_needs_the_ids(
    faulty_services: None, loses_answer: bool
) -> None:
    service = FaultyService(uuid.uuid4().hex, Fault("publish", 1, loses_answer, OUTAGE))
    with open_app(service, BRIEFLY) as app:
        spec = app.task(name="work")(str).spec
        requests = [Request(name="work", spec=spec, args=[n]) for n in range(5)]

        with pytest.raises(ServiceUnavailableError) as failure:
            app.send(requests)

        ids = failure.value.task_ids
        assert len(set(ids)) == len(requests)
        assert f"{ids[0]!r}, {ids[1]!r}, {ids[2]!r} and 2 more" in failure.value.__notes__[0]
        assert pickle.loads(pickle.dumps(failure.value)).task_ids == ids
        # They may have ended by now: what they left must not be forgotten.
        assert {app.AsyncResult(task_id).state for task_id in ids} == {State.QUEUED}

        with app.running():
            again = [replace(r, task_id=i) for r, i in zip(requests, ids, strict=True)]
            clock.sleep(OUTAGE)
            values = [handle.get(timeout=PATIENCE) for handle in app.send(again)]
        assert values == [str(n) for n in range(5)]


@pytest.mark.experiment(6)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_joined", [False, True], ids=["two services", "one service"])
def test_the_nth_call_fails_for_every_n(
    score: Score, dice: random.Random, sized: Sized, faulty_services: None, is_joined: bool
) -> None:
    usual = live(None, is_joined=is_joined)
    assert bool(usual.service.calls["exchange"]) is is_joined
    assert usual.bodies == 2  # the attempt that asked for another one, and that one
    faults = [
        Fault(hook, number, loses_answer, seconds)
        for hook in HOOKS
        for number in range(1, usual.service.calls[hook] + 1)
        for loses_answer in (False, True)
        for seconds in (0.0, OUTAGE)
    ]
    if (count := sized(len(faults), 24)) < len(faults):
        faults = dice.sample(faults, count)
    score.submitted = len(faults)

    def judged(fault: Fault) -> None:
        try:
            life = live(fault, is_joined=is_joined)
        except (AssertionError, pytest.fail.Exception) as exc:
            score.surprise(f"{fault}: {exc}")
            return
        score.recorded += 1
        score.executed += life.bodies
        score.duplicated += max(0, life.bodies - 2)
        if not fault.seconds and life.errors:
            score.surprise(f"{fault}: the caller saw it")

    with ThreadPoolExecutor(LIVES) as lives:
        list(lives.map(judged, faults))
    score.judge()
