"""Waiters: a blocked thread always comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from upshot import clock
from upshot.clock import Deadline
from upshot.errors import ServiceUnavailableError, UpshotError
from upshot.troubles import Troubles
from upshot.waiters import ThreadSink
from upshot.waiting import Hub

PATIENCE = 30.0  # seconds


def comes_to(look: Callable[[], object], goal: object) -> None:
    deadline = Deadline(PATIENCE)
    while (seen := look()) != goal and not deadline.expired:
        clock.sleep(0.01)
    assert seen == goal


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seconds", [1e-9, 1e-7, 1e-6, 5e-6])
def test_a_deadline_that_passes_while_the_wait_begins_ends_it(seconds: float) -> None:
    for _ in range(2000):
        assert list(ThreadSink[str]().collect(1, Deadline(seconds))) == []


def test_a_hub_whose_service_is_silent_says_so_before_the_service_fails() -> None:
    answer = threading.Event()

    def load(keys: Sequence[str]) -> list[str | UpshotError | None]:
        answer.wait(PATIENCE)
        return [None for _ in keys]

    hub = Hub[str](
        load=load,
        decode=lambda key, body: body.decode(),
        is_ended=bool,
        listen=lambda: None,
        explain=lambda exc: None,
        poll_interval=1.0,
        name="hub",
    )
    sink = ThreadSink[str]()
    try:
        hub.watch(["a"], sink)
        comes_to(lambda: isinstance(hub.troubles.current, ServiceUnavailableError), True)
        assert str(hub.troubles.current).startswith("no answer for ")
        answer.set()
        comes_to(lambda: hub.troubles.current, None)
    finally:
        answer.set()
        hub.close()


@pytest.mark.parametrize("is_heard", [False, True])
def test_what_a_first_look_met_holds_until_the_service_answers(is_heard: bool) -> None:
    met = ServiceUnavailableError("away for now")
    troubles = Troubles(lambda exc: None)
    began = clock.monotonic()
    clock.sleep(0.001)
    if is_heard:
        troubles.answered()

    assert troubles.since(began, met) is (None if is_heard else met)
