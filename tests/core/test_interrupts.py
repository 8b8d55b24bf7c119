"""Time limits strike between calls to a service, never inside one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import ClassVar

import pytest

from upshot import clock
from upshot.engine.limits import soft_limit
from upshot.errors import SoftTimeLimitExceededError
from upshot.interrupts import shield
from upshot.retrying import DriverErrors
from upshot.service import OpenService
from upshot.url import Url

pytestmark = pytest.mark.alone  # a limit must not pass before what it is for has begun

LIMIT = 0.05  # seconds
LONGER = 0.3  # seconds
TINY = 0.00001  # seconds: it strikes while it is set
OFTEN = 300


class Driver:
    """Does half of something, and the other half later."""

    driver_errors: ClassVar = DriverErrors()

    def __init__(self) -> None:
        self.halves = 0

    def work(self) -> None:
        """Take long, in Python and in C."""
        self.halves += 1
        until = clock.monotonic() + LONGER
        while clock.monotonic() < until:
            clock.sleep(0.001)
        self.halves += 1

    def close(self) -> None:
        """There is nothing to close."""


def in_main_thread(test: Callable[[], None]) -> None:
    test()


def in_another_thread(test: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            test()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if errors:
        raise errors[0]


@pytest.fixture(params=[in_main_thread, in_another_thread])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    """Runs something in the main thread, where limits are signals, and in another one."""
    chosen: Callable[[Callable[[], None]], None] = request.param
    return chosen


def test_a_limit_strikes_when_the_call_has_returned(
    run: Callable[[Callable[[], None]], None],
) -> None:
    def test() -> None:
        driver, began = Driver(), clock.monotonic()
        service: OpenService[Driver] = OpenService(
            lambda: driver, url=Url.parse("memory://"), timeout=5.0
        )
        with pytest.raises(SoftTimeLimitExceededError, match=r"0\.05"), soft_limit(LIMIT):  # noqa: PT012
            service.call(lambda driver, _: driver.work())
            while True:
                clock.sleep(0.01)
        assert driver.halves == 2
        assert LONGER <= clock.monotonic() - began < LONGER + 5

    run(test)


def test_a_limit_strikes_at_once_between_calls(run: Callable[[Callable[[], None]], None]) -> None:
    def test() -> None:
        began = clock.monotonic()
        with shield():
            pass
        with pytest.raises(SoftTimeLimitExceededError), soft_limit(LIMIT):  # noqa: PT012
            while clock.monotonic() < began + 30:
                clock.sleep(0.001)
        assert clock.monotonic() - began < 5

    run(test)


def test_blocks_may_be_nested(run: Callable[[Callable[[], None]], None]) -> None:
    def test() -> None:
        inner = False
        with pytest.raises(SoftTimeLimitExceededError), soft_limit(LIMIT), shield():  # noqa: PT012
            with shield():
                clock.sleep(2 * LIMIT)
            inner = True
        assert inner

    run(test)


def test_an_error_of_the_call_is_not_lost(run: Callable[[Callable[[], None]], None]) -> None:
    def test() -> None:
        with pytest.raises(SoftTimeLimitExceededError) as caught, soft_limit(LIMIT), shield():  # noqa: PT012
            clock.sleep(2 * LIMIT)
            raise ValueError("of the call")
        assert isinstance(caught.value.__context__, ValueError)

    run(test)


def test_a_limit_may_strike_while_it_is_set(run: Callable[[Callable[[], None]], None]) -> None:
    def test() -> None:
        handler = signal.getsignal(signal.SIGALRM)
        for _ in range(OFTEN):
            began = clock.monotonic()
            with pytest.raises(SoftTimeLimitExceededError, match="longer than"), soft_limit(TINY):  # noqa: PT012
                while clock.monotonic() < began + 30:
                    clock.sleep(0.001)
            assert signal.getsignal(signal.SIGALRM) == handler

    run(test)


def test_a_limit_may_strike_when_the_block_ends(run: Callable[[Callable[[], None]], None]) -> None:
    def test() -> None:
        handler = signal.getsignal(signal.SIGALRM)
        for _ in range(OFTEN):
            with contextlib.suppress(SoftTimeLimitExceededError), soft_limit(TINY):
                pass
            assert signal.getsignal(signal.SIGALRM) == handler
            with shield():
                pass

    run(test)


def test_a_limit_that_did_not_strike_is_forgotten() -> None:
    with soft_limit(30), shield():
        clock.sleep(0.01)
    with shield():
        clock.sleep(0.01)
