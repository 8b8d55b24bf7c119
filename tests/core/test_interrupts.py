"""Time limits strike between calls to a service, never inside one."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from upshot import clock
from upshot.engine.limits import soft_limit
from upshot.errors import SoftTimeLimitExceededError
from upshot.interrupts import shield
from upshot.keyring import Keyring
from upshot.offload import Offload
from upshot.offload.folder import Folder
from upshot.record import Payload
from upshot.retrying import DriverErrors
from upshot.serializers import JsonSerializer, PickleSerializer
from upshot.service import OpenService
from upshot.url import Url

pytestmark = pytest.mark.alone  # a limit must not pass before what it is for has begun

LIMIT = 0.05  # seconds
LONGER = 0.3  # seconds
SHORT = 0.005  # seconds
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


def spin(seconds: float = SHORT) -> None:
    """Be in Python code for some milliseconds, as a finaliser may be."""
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        clock.sleep(SHORT / 10)


class Quiet:
    """Nobody hears of what goes wrong while it is collected: drivers are written so."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            spin()


class Broken:
    def __del__(self) -> None:
        raise ValueError("of the finaliser")


class Loud:
    """Python itself drops what is raised while it is collected, and says so."""

    def __del__(self) -> None:
        spin()


def in_a_quiet_finaliser() -> None:
    Quiet()


def in_a_finaliser() -> None:
    Loud()


def in_a_weak_reference() -> None:
    thing = Driver()
    gone = weakref.ref(thing, lambda _: spin())
    del thing
    assert gone() is None


def in_a_finalize() -> None:
    weakref.finalize(Driver(), spin)


def in_a_generator_that_is_dropped() -> None:
    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            spin()

    assert next(items()) == 1


class Slow(logging.Handler):
    """Takes long for a line, as a full pipe does; `logging` prints what is raised, and goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            spin()
        except Exception:
            self.handleError(record)


def in_a_log() -> None:
    Slow().handle(logging.makeLogRecord({}))


def strikes_in(somewhere: Callable[[], object], times: int) -> None:
    """Be somewhere most of the time, under a limit, which has to strike each time."""
    for _ in range(times):
        began = clock.monotonic()
        with pytest.raises(SoftTimeLimitExceededError), soft_limit(LIMIT):  # noqa: PT012
            while clock.monotonic() < began + 5:
                somewhere()


@pytest.mark.parametrize(
    "somewhere",
    [
        in_a_quiet_finaliser,
        in_a_finaliser,
        in_a_weak_reference,
        in_a_finalize,
        in_a_generator_that_is_dropped,
        in_a_log,
    ],
)
def test_a_limit_is_not_lost_where_exceptions_are_dropped(
    run: Callable[[Callable[[], None]], None], somewhere: Callable[[], None]
) -> None:
    def and_out_of_it() -> None:
        somewhere()
        clock.sleep(SHORT / 5)

    run(partial(strikes_in, and_out_of_it, times=10))


def test_what_others_drop_is_told_as_before(
    run: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def test() -> None:
        with soft_limit(30):
            Broken()

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        told.append(dropped.exc_type)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    run(test)
    run(test)
    assert told == [ValueError, ValueError]


def test_a_limit_that_was_dropped_does_not_outlive_its_block(
    run: Callable[[Callable[[], None]], None],
) -> None:
    def test() -> None:
        for _ in range(10):
            with contextlib.suppress(SoftTimeLimitExceededError), soft_limit(LIMIT):
                until = clock.monotonic() + LIMIT - SHORT / 2
                while clock.monotonic() < until:
                    clock.sleep(0.001)
                Loud()
            clock.sleep(SHORT)
        with shield():
            pass

    run(test)


def test_a_limit_is_not_lost_in_what_tells_of_others(
    run: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_and_out_of_it() -> None:
        Broken()
        clock.sleep(SHORT / 5)

    def hook(_: sys.UnraisableHookArgs) -> None:
        spin()

    monkeypatch.setattr(sys, "unraisablehook", hook)
    run(partial(strikes_in, in_and_out_of_it, times=10))


def test_a_signal_that_comes_late_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process: nobody is there to handle the next one."""
    real = signal.setitimer

    class Late:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGALRM)
            clock.sleep(0)

    def setitimer(which: int, seconds: float) -> None:
        real(which, seconds)
        if not seconds:
            Late()

    monkeypatch.setattr(signal, "setitimer", setitimer)
    with soft_limit(30):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_no_thread_is_left_of_a_limit_that_struck_while_it_was_set() -> None:
    def test() -> None:
        for _ in range(OFTEN):
            with contextlib.suppress(SoftTimeLimitExceededError), soft_limit(TINY):
                pass

    in_another_thread(test)
    deadline = clock.Deadline(5)
    while (left := {each.name for each in threading.enumerate()}) & {"upshot-limit"}:
        assert not deadline.expired, left
        clock.sleep(0.01)


def test_no_thread_is_left_of_a_limit_that_struck_while_its_block_was_left() -> None:
    class Entered:
        """Takes long to be entered at the end of the block: the limit strikes there."""

        def __init__(self) -> None:
            self.below = shield()
            self.times = 0

        def __enter__(self) -> None:
            self.times += 1
            if self.times > 1:
                spin(LONGER)
            self.below.__enter__()

        def __exit__(self, *error: object) -> None:
            self.below.__exit__(*error)

        def interrupt(self, error: BaseException) -> None:
            self.below.interrupt(error)

    def test() -> None:
        limit: Any = soft_limit(LIMIT)
        limit._here = Entered()
        with pytest.raises(SoftTimeLimitExceededError), limit:
            pass
        limit._timer.join(5)
        assert not limit._timer.is_alive()

    in_another_thread(test)


def test_a_limit_is_not_put_off_for_ever_by_a_task_that_logs_all_the_time(
    run: Callable[[Callable[[], None]], None],
) -> None:
    """Another thread comes to run mostly where this one writes a line, and lets go for it."""

    def compute_and_log() -> None:
        until = clock.monotonic() + SHORT / 50
        while clock.monotonic() < until:
            pass
        handler.handle(logging.makeLogRecord({}))

    with open(os.devnull, "w", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        run(partial(strikes_in, compute_and_log, times=3))


def test_what_others_drop_is_no_sign_that_a_limit_has_struck(
    run: Callable[[Callable[[], None]], None],
) -> None:
    class Passing:
        def __del__(self) -> None:
            raise SoftTimeLimitExceededError("of another task, as from its result")

    def test() -> None:
        with soft_limit(30):
            Passing()
            clock.sleep(LIMIT)

    run(test)


FORKS = f"""
import os, sys, time
ended = []
def hook():
    until = time.monotonic() + {LONGER}
    while time.monotonic() < until:
        pass
    ended.append("whole")
os.register_at_fork(after_in_parent=hook)
from upshot.engine.limits import soft_limit
from upshot.errors import SoftTimeLimitExceededError
try:
    with soft_limit({LIMIT}):
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(5)
except SoftTimeLimitExceededError:
    ended.append("struck")
print(*ended)
"""


def test_a_limit_waits_for_the_hooks_of_a_fork() -> None:
    """One of `logging` gives back its lock, which would be held for ever."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["whole", "struck"]


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "after a call"])
def test_a_limit_keeps_nothing_of_what_it_ended(
    run: Callable[[Callable[[], None]], None], is_late: bool
) -> None:
    kept: list[weakref.ref[Driver]] = []

    def work() -> None:
        driver = Driver()
        kept.append(weakref.ref(driver))
        with shield() if is_late else contextlib.nullcontext():
            driver.work()
        clock.sleep(LONGER)

    def test() -> None:
        with soft_limit(LIMIT):
            with contextlib.suppress(SoftTimeLimitExceededError):
                work()
            assert kept.pop()() is None

    gc.collect()
    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()


class Pickled:
    """Takes long to be pickled, and to be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        clock.sleep(LONGER)
        return clock.sleep, (LONGER,)


@dataclass
class Lazy:
    """A field of it takes long to be read, as one that is loaded from a database."""

    part: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "part":
            clock.sleep(LONGER)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "encode",
    [
        partial(PickleSerializer().dumps, Pickled()),
        partial(PickleSerializer().loads, PickleSerializer().dumps(Pickled())),
        partial(JsonSerializer().dumps, Lazy()),
    ],
    ids=["pickle", "unpickle", "field"],
)
def test_a_limit_in_an_encoder_is_no_fault_of_the_value(
    run: Callable[[Callable[[], None]], None], encode: Callable[[], object]
) -> None:
    def test() -> None:
        with pytest.raises(SoftTimeLimitExceededError), soft_limit(LIMIT):
            encode()

    run(test)


def test_a_limit_does_not_strike_while_a_file_is_put_elsewhere(
    run: Callable[[Callable[[], None]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(_: Folder, name: str, data: bytes) -> None:
        clock.sleep(LONGER)
        written.append(name)

    def test() -> None:
        place = Offload(f"file://{tmp_path}", namespace="n", keyring=Keyring((), ()), threshold=1)
        with pytest.raises(SoftTimeLimitExceededError), soft_limit(LIMIT):
            place.put("id", Payload("json", b"much"), 2**20, None)
        assert written

    monkeypatch.setattr(Folder, "write", write)
    run(test)
