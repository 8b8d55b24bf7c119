"""What observers of an app are told, and what they cannot break."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from upshot import App, current_task
from upshot.errors import (
    ConfigError,
    ResultTimeoutError,
    ServiceUnavailableError,
    SoftTimeLimitExceededError,
)
from upshot.message import Message
from upshot.observing import (
    Ended,
    Observer,
    Reading,
    Run,
    Sending,
    add_observer,
    close_all,
    notes_of,
)
from upshot.record import Payload, Record

inherited: ContextVar[str] = ContextVar("inherited", default="")


class Diary(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    @contextmanager
    def sending(self, sending: Sending) -> Generator[None]:
        for position in range(len(sending.messages)):
            sending.add_header(position, "from", inherited.get() or "outside")
        try:
            yield
        except Exception as exc:
            self.lines.append(("not sent", type(exc)))
            raise
        names = [each.name for each in sending.messages]
        self.lines.append(("sent", names, sorted(sending.repeats)))

    @contextmanager
    def running(self, run: Run) -> Generator[None]:
        self.threads.add(threading.get_ident())
        run.note("run", f"{run.message.name}/{run.attempt}")
        token = inherited.set(run.message.name)
        try:
            yield
        finally:
            inherited.reset(token)
            kind = type(run.exception).__name__ if run.exception else None
            self.lines.append(("ran", run.message.name, run.attempt, run.state, kind))

    @contextmanager
    def reading(self, reading: Reading) -> Generator[None]:
        try:
            yield
        except Exception as exc:
            self.lines.append(("not read", type(exc)))
            raise
        self.lines.append(("read", [notes_of(each) for each in reading.records]))

    def ended(self, ended: Ended) -> None:
        name = ended.message and ended.message.name
        kind = type(ended.exception).__name__ if ended.exception else None
        self.lines.append(("ended", name, ended.state, ended.run is not None, kind))

    def of(self, what: str) -> list[tuple[Any, ...]]:
        return [line[1:] for line in self.lines if line[0] == what]


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def app(diary: Diary) -> Iterator[App]:
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, task_retry_backoff=0) as app:
        app.observe(diary)
        yield app


def test_a_value_is_seen_from_its_sending_to_its_reading(app: App, diary: Diary) -> None:
    @app.task(name="one")
    def one() -> str:
        return str(current_task().headers["from"])

    with app.running():
        assert one.delay().get(timeout=10) == "outside"

    assert sorted(diary.lines, key=lambda line: str(line[0])) == [
        ("ended", "one", "SUCCESS", True, None),
        ("ran", "one", 1, "SUCCESS", None),
        ("read", [{"run": "one/1"}]),
        ("sent", ["one"], []),
    ]
    assert len(diary.threads) == 1


def test_each_attempt_is_seen_with_what_ended_it(app: App, diary: Diary) -> None:
    @app.task(name="shaky", autoretry_for=(ValueError,), max_retries=2)
    def shaky() -> int:
        if current_task().retries < 2:
            raise ValueError("not yet")
        return 3

    with app.running():
        assert shaky.delay().get(timeout=10) == 3

    assert diary.of("ran") == [
        ("shaky", 1, "RETRY", "ValueError"),
        ("shaky", 2, "RETRY", "ValueError"),
        ("shaky", 3, "SUCCESS", None),
    ]
    assert [line[1] for line in diary.of("ended")] == ["RETRY", "RETRY", "SUCCESS"]
    assert diary.of("read") == [([{"run": "shaky/3"}],)]


def test_a_failure_is_read_like_a_value(app: App, diary: Diary) -> None:
    @app.task(name="broken")
    def broken() -> None:
        raise KeyError("tea")

    with app.running(), pytest.raises(KeyError):
        broken.delay().get(timeout=10)

    assert diary.of("ran") == [("broken", 1, "FAILURE", "KeyError")]
    assert diary.of("read") == [([{"run": "broken/1"}],)]


def test_what_a_run_sets_is_seen_in_a_coroutine_and_by_what_it_sends(
    app: App, diary: Diary
) -> None:
    @app.task(name="inner")
    def inner() -> str:
        return str(current_task().headers["from"])

    @app.task(name="outer")
    async def outer() -> str:
        await asyncio.sleep(0)
        inner.delay()
        return inherited.get()

    @app.task(name="stream")
    async def stream() -> Any:
        yield inherited.get()

    with app.running():
        assert outer.delay().get(timeout=10) == "outer"
        assert list(stream.delay().stream(timeout=10)) == ["stream"]
    assert inherited.get() == ""
    assert ("sent", ["inner"], []) in diary.lines


def test_a_batch_is_one_sending_and_one_reading(app: App, diary: Diary) -> None:
    @app.task(name="double")
    def double(n: int) -> int:
        return 2 * n

    async def gathered() -> list[int]:
        return await double.map([4])

    with app.running():
        assert double.map([1, 2, 3]).get(timeout=10) == [2, 4, 6]
        assert asyncio.run(gathered()) == [8]

    assert diary.of("sent") == [(["double"] * 3, []), (["double"], [])]
    assert [len(line[0]) for line in diary.of("read")] == [3, 1]


def test_a_key_that_is_taken_is_told(app: App, diary: Diary) -> None:
    @app.task(name="once")
    def once() -> None: ...

    once.apply_async(key="k")
    once.apply_async(key="k")

    assert diary.of("sent") == [(["once"], []), (["once"], [0])]


def test_a_header_of_the_sender_stays(app: App) -> None:
    @app.task(name="own")
    def own() -> str:
        return str(current_task().headers["from"])

    with app.running():
        assert own.apply_async(headers={"from": "me"}).get(timeout=10) == "me"


def test_what_cannot_be_sent_or_read_is_told_and_raised(app: App, diary: Diary) -> None:
    with App(broker="redis://127.0.0.1:1", operation_timeout=0.1) as away:  # nobody listens there
        away.observe(diary)
        with pytest.raises(ServiceUnavailableError):
            away.send_task("one")
    with pytest.raises(ResultTimeoutError):
        app.send_task("one").get(timeout=0)

    assert diary.of("not sent") == [(ServiceUnavailableError,)]
    assert diary.of("not read") == [(ResultTimeoutError,)]


def test_a_task_that_is_not_run_has_an_end_all_the_same(app: App, diary: Diary) -> None:
    @app.task(name="late")
    def late() -> None: ...

    handles = [app.send_task("nobody"), late.apply_async(expires=-1)]
    with app.running():
        for handle in handles:
            handle.exception(timeout=10)

    assert sorted(diary.of("ended")) == [
        ("late", "REVOKED", False, "TaskExpiredError"),
        ("nobody", "FAILURE", False, "UnknownTaskError"),
    ]
    assert diary.of("ran") == []


def test_a_time_limit_ends_a_run_that_goes_on(app: App, diary: Diary) -> None:
    release = threading.Event()

    @app.task(name="endless", time_limit=0.1)
    def endless() -> None:
        release.wait(20)

    with app.running():
        endless.delay().exception(timeout=10)
        deadline = time.monotonic() + 30
        while not diary.of("ended") and time.monotonic() < deadline:
            time.sleep(0.02)
        release.set()

    assert diary.of("ended") == [("endless", "FAILURE", True, "TimeLimitExceededError")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_soft_limit_that_strikes_an_observer_is_the_tasks(
    when: str, app: App, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Observer):
        @contextmanager
        def sending(self, sending: Sending) -> Generator[None]:
            is_inner = sending.messages[0].name == "inner"
            if is_inner and when == "before":
                self.work()
            yield
            if is_inner and when == "after":
                self.work()

        def work(self) -> None:
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                time.sleep(0.01)

    app.observe(Slow())

    @app.task(name="inner")
    def inner() -> None:
        """Do nothing."""

    @app.task(name="outer", soft_time_limit=0.2)
    def outer() -> str:
        try:
            inner.delay()
            for _ in range(1000):  # where it strikes if it came late
                time.sleep(0.01)
        except SoftTimeLimitExceededError:
            return "struck"
        return "lost"

    with app.running():
        assert outer.delay().get(timeout=30) == "struck"

    assert len(diary.of("sent")) + len(diary.of("not sent")) == 2
    assert [each for each in caplog.records if each.name == "upshot.observing"] == []


def test_what_is_entered_is_left_when_the_next_one_is_interrupted(app: App, diary: Diary) -> None:
    class Interrupted(Observer):
        def sending(self, sending: Sending) -> AbstractContextManager[object]:
            raise KeyboardInterrupt

    left: list[object] = []

    class First(Observer):
        def sending(self, sending: Sending) -> AbstractContextManager[object]:
            stack = ExitStack()
            stack.callback(left.append, self)
            return stack

    app.observe(First())
    app.observe(Interrupted())

    with pytest.raises(KeyboardInterrupt):
        app.send_task("any")

    assert len(left) == 1


def test_a_task_without_a_record_is_seen_too(app: App, diary: Diary) -> None:
    done = threading.Event()

    @app.task(name="quiet", ignore_result=True)
    def quiet() -> None:
        done.set()

    with app.running():
        quiet.delay()
        assert done.wait(10)

    assert diary.of("ended") == [("quiet", "SUCCESS", True, None)]


class Clumsy(Observer):
    """Fails in one of the ways that there are."""

    def __init__(self, when: str) -> None:
        self._when = when

    @contextmanager
    def _around(self) -> Generator[None]:
        if self._when == "before":
            raise OSError("before")
        try:
            yield
        finally:
            if self._when == "after":
                raise OSError("after")

    def _begin(self) -> AbstractContextManager[None]:
        if self._when == "at once":
            raise OSError("at once")
        return self._around()

    def sending(self, sending: Sending) -> AbstractContextManager[object]:
        if self._when == "no text":
            sending.add_header(0, "n", 1)  # type: ignore[arg-type]  # pyright: ignore
        return self._begin()

    def running(self, run: Run) -> AbstractContextManager[object]:
        if self._when == "no note":
            run.note("two words", "x")
        return self._begin()

    def reading(self, reading: Reading) -> AbstractContextManager[object]:
        return self._begin()

    def ended(self, ended: Ended) -> None:
        raise OSError("ended")


@pytest.mark.parametrize("when", ["at once", "before", "after", "no text", "no note"])
def test_an_observer_that_raises_breaks_nothing(
    when: str, app: App, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    app.observers.insert(0, Clumsy(when))

    @app.task(name="fine")
    def fine() -> int:
        return 1

    @app.task(name="broken")
    def broken() -> None:
        raise KeyError("tea")

    with app.running():
        assert fine.map([(), ()]).get(timeout=10) == [1, 1]
        with pytest.raises(KeyError):
            broken.delay().get(timeout=10)
        with pytest.raises(ResultTimeoutError):
            fine.apply_async(countdown=60).get(timeout=0)

    assert len(diary.of("ran")) == 3
    complaints = [each for each in caplog.records if each.name == "upshot.observing"]
    assert len(complaints) <= 1
    assert all("Clumsy" in each.getMessage() for each in complaints)


def test_what_an_observer_swallows_is_raised_all_the_same(app: App) -> None:
    class Mute(Observer):
        @contextmanager
        def reading(self, reading: Reading) -> Generator[None]:
            try:
                yield
            except ResultTimeoutError:
                return

    app.observe(Mute())
    with pytest.raises(ResultTimeoutError):
        app.AsyncResult("nothing").get(timeout=0)


def test_an_observer_is_one_and_is_added_once(app: App, diary: Diary) -> None:
    with pytest.raises(ConfigError, match="observes this app already"):
        app.observe(diary)
    with pytest.raises(ConfigError, match=r"upshot\.observing\.Observer"):
        app.observe(object())  # type: ignore[arg-type]  # pyright: ignore


def test_a_failure_of_an_observer_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    class Silly(Observer):
        def closing(self) -> None:
            raise ValueError("no")

    observers: list[Observer] = []
    add_observer(Silly(), observers)
    with caplog.at_level(logging.WARNING):
        close_all(observers, 10)
        close_all(observers, 10)

    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info


def test_closing_is_given_up_when_its_time_is_over() -> None:
    release = threading.Event()

    class Slow(Observer):
        def closing(self) -> None:
            release.wait(30)

    began = time.monotonic()
    close_all([Slow()], 0.05)
    assert time.monotonic() - began < 20
    release.set()


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "x"), ("x", ""), ("a b", "x"), ("a=b", "x"), ("x", "a b"), ("x", "é"), ("x", "y" * 300)],
)
def test_a_note_is_short_printable_ascii(name: str, value: str) -> None:
    run = Run(Message(task_id="1", name="n", arguments=Payload("json", b""), queue="q"), 1, "w")

    with pytest.raises(ValueError, match="a note"):
        run.note(name, value)
    assert run.noted("token") == "token"


@pytest.mark.parametrize("token", ["", "abc", "abc def", "abc =x", "a  b=", " "])
def test_notes_are_read_from_any_token(token: str) -> None:
    found = notes_of(Record(task_id="1", state="SUCCESS", token=token))

    assert all(name == "" or value == "" for name, value in found.items())


def test_what_a_task_raised_is_kept_alive_by_nobody(app: App, diary: Diary) -> None:
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    @app.task(name="heavy")
    def heavy() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise ValueError("with a frame")

    runs: list[Run] = []

    class Keeping(Observer):
        @contextmanager
        def running(self, run: Run) -> Generator[None]:
            runs.append(run)
            yield

    app.observe(Keeping())
    with app.running():
        heavy.delay().exception(timeout=10)

    gc.collect()
    assert runs[0].state == "FAILURE"
    assert seen[0]() is None
