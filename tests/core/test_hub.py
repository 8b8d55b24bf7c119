"""The wait hub: what ends, interrupts or collects its callers does it no harm."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import CorruptRecordError, ResultForgottenError, UpshotError
from upshot.listening import Hint, Listener
from upshot.record import Record
from upshot.registry import backend_class
from upshot.url import Url
from upshot.waiters import ThreadSink
from upshot.waiting import Hub
from upshot_conformance.layer import Layer, ListenerLayer
from upshot_conformance.records import success, unfinished, value_of

TOO_LARGE = 2**46  # bytes of a stack that no machine has the memory for
PATIENCE = 60.0


@pytest.fixture
def client() -> Iterator[ResultClient]:
    """A client of a service that nobody else sees."""
    url = Url.parse(f"memory://{uuid.uuid4().hex}")
    make = backend_class(url)
    with ResultClient(lambda: make(url), url=url) as client:
        yield client


@pytest.fixture
def no_threads() -> Iterator[Callable[[], None]]:
    """No thread can be started until what this yields is called."""
    usual = threading.stack_size(TOO_LARGE)

    def again() -> None:
        threading.stack_size(usual)

    yield again
    threading.stack_size(usual)


def test_a_wait_that_could_not_start_a_thread_spoils_no_later_one(
    client: ResultClient, no_threads: Callable[[], None]
) -> None:
    with pytest.raises(RuntimeError, match="start"):
        client.wait("task", timeout=PATIENCE)

    no_threads()

    threading.Timer(0.05, client.store, [success("task", 1)]).start()
    assert value_of(client.wait("task", timeout=PATIENCE)) == 1


def test_a_client_whose_wait_could_not_start_a_thread_is_closed(
    client: ResultClient, no_threads: Callable[[], None]
) -> None:
    with pytest.raises(RuntimeError, match="start"):
        client.wait("task", timeout=PATIENCE)
    with pytest.raises(RuntimeError, match="start"):
        client.when_ended("task", lambda found: pytest.fail("it was never registered"))

    client.close()


def test_a_callback_that_could_not_start_a_thread_spoils_no_later_one(
    client: ResultClient, no_threads: Callable[[], None]
) -> None:
    called = threading.Event()
    with pytest.raises(RuntimeError, match="start"):
        client.when_ended("task", lambda found: pytest.fail("it was never registered"))

    no_threads()

    client.when_ended("task", lambda found: called.set())
    client.store(success("task", 1))
    assert called.wait(PATIENCE)


@pytest.mark.timeout(60)
def test_an_abandoned_wait_may_be_collected_in_the_midst_of_the_hubs_work(
    client: ResultClient,
) -> None:
    abandoned = client.wait_many(["first", "second"], timeout=PATIENCE)
    threading.Timer(0.05, client.store, [success("first", 1)]).start()
    assert next(abandoned)[0] == "first"
    cycle: list[Any] = [abandoned]
    cycle.append(cycle)
    del abandoned, cycle

    def keys() -> Iterator[str]:  # the hub holds its lock meanwhile
        gc.collect()
        yield "key"

    hub = client.waiting_hub()
    hub.watch(keys(), ThreadSink[Record]())

    assert client.stats()["waiters"] == 1


@pytest.mark.parametrize("reason", [ValueError("a mistake"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_callback_raises_the_next_one_is_called(
    client: ResultClient, reason: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()

    def fails(found: Record | UpshotError) -> None:
        raise reason

    with caplog.at_level(logging.ERROR):
        client.when_ended("first", fails)
        client.store(success("first", 1))
        client.when_ended("second", lambda found: called.set())
        client.store(success("second", 2))
        assert called.wait(PATIENCE)

    assert "a callback of a result raised" in caplog.text


def test_a_callback_on_a_closed_client_starts_no_thread(client: ResultClient) -> None:
    client.close()
    threads = threading.active_count()

    with pytest.raises(UpshotError):
        client.when_ended("task", lambda found: None)

    assert threading.active_count() == threads


def test_a_wait_that_timed_out_is_referred_to_by_nobody(client: ResultClient) -> None:
    sink = ThreadSink[Record]()
    hub = client.waiting_hub()
    hub.watch(["task"], sink)
    hub.unwatch(["task"], sink)

    assert client.stats()["waiters"] == 0
    assert sys.getrefcount(sink) == 2  # its name here, and the argument


OLD = success("task", "old")


class TellsOldNews(Layer):
    """Tells each subscriber first how the id's last use ended, and that it was forgotten."""

    def listen(self, timeout: float) -> Listener | None:
        below = self.below.listen(timeout)
        return below and OldNews(below)


class OldNews(ListenerLayer):
    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self.told: list[str] = []

    def subscribe(self, keys: Sequence[str]) -> None:
        super().subscribe(keys)
        self.told += keys

    def wait(self, timeout: float) -> Sequence[Hint]:
        told, self.told = self.told, []
        old = [hint for key in told for hint in (Hint(key, OLD.encode()), Hint(key, b""))]
        return old or super().wait(timeout)


def test_news_of_an_ids_last_use_ends_no_wait_for_what_is_there() -> None:
    url = Url.parse(f"memory://{uuid.uuid4().hex}")
    make = backend_class(url)
    with ResultClient(lambda: TellsOldNews.above(make(url)), url=url) as client:
        client.store(OLD)
        client.waiting_hub()
        client.forget(["task"])
        client.store(unfinished("task"))
        threading.Timer(0.2, client.store, [success("task", 1)]).start()
        assert value_of(client.wait("task", timeout=PATIENCE)) == 1

        client.forget(["task"])
        with pytest.raises(ResultForgottenError):
            client.wait("task", timeout=PATIENCE)


def hub_of(
    load: Callable[[Sequence[str]], Sequence[Record | None]], listener: Listener | None
) -> Hub[Record]:
    """Return a hub that reads so, and hears so; nobody tells it a body."""
    return Hub[Record](
        load=load,
        decode=lambda _key, _body: CorruptRecordError("never called", task_id="task"),
        is_ended=lambda record: record.is_terminal,
        listen=lambda: listener,
        explain=lambda _exc: None,
        poll_interval=1.0,
        name="test-hub",
    )


def test_a_look_that_began_before_its_id_was_used_again_ends_no_wait() -> None:
    answers = iter([OLD])
    reading, goes_on = threading.Event(), threading.Event()

    def load(keys: Sequence[str]) -> Sequence[Record]:
        found = next(answers, success("task", "new"))
        if found is OLD:
            reading.set()
            assert goes_on.wait(PATIENCE)
        return [found] * len(keys)

    hub = hub_of(load, None)
    first, second = ThreadSink[Record](), ThreadSink[Record]()
    hub.watch(["task"], first)
    assert reading.wait(PATIENCE)
    hub.unwatch(["task"], first)  # it has found the end by itself meanwhile
    hub.forget(["task"])
    hub.watch(["task"], second)
    goes_on.set()

    ((_, found),) = second.collect(1, Deadline(PATIENCE))
    hub.close()

    assert isinstance(found, Record)
    assert value_of(found) == "new"


class TellsOnce(Listener):
    """Says once, after so many seconds, that something may have changed."""

    def __init__(self, after: float) -> None:
        self._after = Deadline(after)
        self._interrupted = threading.Event()
        self.said_at = 0.0

    def subscribe(self, keys: Sequence[str]) -> None:
        pass

    def unsubscribe(self, keys: Sequence[str]) -> None:
        pass

    def wait(self, timeout: float) -> Sequence[Hint]:
        if not self.said_at:
            self._interrupted.wait(self._after.left(timeout))
            if self._after.expired:
                self.said_at = clock.monotonic()
                return [Hint(None)]
        else:
            self._interrupted.wait(timeout)
        self._interrupted.clear()
        return []

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        pass


@pytest.mark.alone
def test_a_hub_that_has_rested_looks_at_once() -> None:
    began: list[float] = []
    second = threading.Event()

    def load(keys: Sequence[str]) -> Sequence[None]:
        began.append(clock.monotonic())
        if len(began) > 1:
            second.set()
        clock.sleep(0.4)
        return [None] * len(keys)

    listener = TellsOnce(after=0.85)
    hub = hub_of(load, listener)
    hub.watch(["task"], ThreadSink[Record]())
    assert second.wait(PATIENCE)
    hub.close()

    assert began[1] - listener.said_at < 0.3  # and not after the 0.4 seconds of another rest
