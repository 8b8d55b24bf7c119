"""Who waits alone reads the push connection itself; who comes second changes nothing for it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import (
    ResultForgottenError,
    ResultTimeoutError,
    ServiceClosedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.lending import Loan
from upshot.listening import Hint, Listener
from upshot.record import Record
from upshot.registry import backend_class
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot.waiters import ThreadSink
from upshot_conformance.layer import Layer, ListenerLayer
from upshot_conformance.records import success, unfinished, value_of

PATIENCE = 60.0


class Lending(ListenerLayer):
    """Lends itself, and notes who uses it."""

    lends = True
    opened: ClassVar[list[Lending]] = []

    def __init__(self, below: Listener) -> None:
        super().__init__(below)
        self.users: list[str] = []
        self.at_wait: Callable[[], object] = lambda: None
        self.is_closed = self.is_deaf = False
        self.opened.append(self)

    def attend(self, key: str, timeout: float | None) -> None:
        self.users.append(threading.current_thread().name)
        super().subscribe([key])

    def wait(self, timeout: float) -> Sequence[Hint]:
        if self.is_deaf:
            clock.sleep(timeout)
            return []
        self.at_wait()
        return super().wait(timeout)

    def close(self) -> None:
        self.is_closed = True
        super().close()


class Lends(Layer):
    is_away = False

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if self.is_away:
            clock.sleep(min(timeout, 0.2))
            raise ConnectionError("away")
        return super().load(keys, timeout)

    def listen(self, timeout: float) -> Listener | None:
        below = self.below.listen(timeout)
        return below and Lending(below)


@pytest.fixture
def client() -> Iterator[ResultClient]:
    """A client whose hub has a listener to lend, and rests."""
    url = Url.parse(f"memory://{uuid.uuid4().hex}")
    make = backend_class(url)
    Lending.opened.clear()
    layer = Lends.above(make(url))
    type(layer).driver_errors = DriverErrors(transient=(ConnectionError,))
    with ResultClient(lambda: layer, url=url) as client:
        threading.Timer(0.02, client.store, [success("first", 0)]).start()
        client.wait("first", timeout=PATIENCE)
        rested(client)
        yield client


def rested(client: ResultClient) -> None:
    hub: Any = client.waiting_hub()
    deadline = clock.Deadline(PATIENCE)
    while not hub._lender.can_lend and not deadline.expired:
        clock.sleep(0.001)
    assert hub._lender.can_lend


def later(call: Callable[..., object], *args: object) -> None:
    threading.Timer(0.1, call, args).start()


def lent() -> None:
    """Wait until the listener is in the hands of a thread that waits."""
    deadline = clock.Deadline(PATIENCE)
    while not Lending.opened[-1].users and not deadline.expired:
        clock.sleep(0.001)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_thread_that_waits_alone_listens_itself(client: ResultClient, is_new: bool) -> None:
    client.newest = "task" if is_new else ""
    later(client.store, success("task", 1))

    assert value_of(client.wait("task", timeout=PATIENCE)) == 1
    assert Lending.opened[-1].users == [threading.current_thread().name]
    assert client.stats()["keys"] == 0


def test_what_was_sent_last_may_have_ended_all_the_same(client: ResultClient) -> None:
    client.newest = "task"
    client.store(success("task", 1))

    assert value_of(client.wait("task", timeout=PATIENCE)) == 1


def test_a_report_of_progress_ends_no_wait(client: ResultClient) -> None:
    later(client.store, unfinished("task"))
    with pytest.raises(ResultTimeoutError):
        client.wait("task", timeout=0.6)


def test_whoever_comes_second_is_served_as_well(client: ResultClient) -> None:
    names = [f"task {number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        waits = [pool.submit(client.wait, name, timeout=PATIENCE) for name in names]
        lent()
        for number, name in enumerate(names):
            client.store(success(name, number))
        found = [value_of(each.result(PATIENCE)) for each in waits]

    assert found == list(range(8))
    assert len(Lending.opened) == 1


def test_two_may_wait_for_one_task(client: ResultClient) -> None:
    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(client.wait, "task", timeout=PATIENCE)
        lent()
        assert client.stats() == {"keys": 1, "waiters": 1, "threads": 1, "listeners": 1}
        second = pool.submit(client.wait, "task", timeout=PATIENCE)
        later(client.store, success("task", 1))

        assert value_of(alone.result(PATIENCE)) == value_of(second.result(PATIENCE)) == 1


def test_a_result_without_any_news_is_found_within_a_second(client: ResultClient) -> None:
    Lending.opened[-1].is_deaf = True
    later(client.store, success("task", 1))
    began = clock.monotonic()

    assert value_of(client.wait("task", timeout=PATIENCE)) == 1
    assert clock.monotonic() - began < PATIENCE / 2


def test_forgetting_ends_it(client: ResultClient) -> None:
    def forget() -> None:
        client.forget(["other"])
        client.forget(["task"])

    later(forget)

    with pytest.raises(ResultForgottenError):
        client.wait("task", timeout=PATIENCE)


def test_closing_ends_it(client: ResultClient) -> None:
    later(client.close)

    with pytest.raises(ServiceClosedError):
        client.wait("task", timeout=PATIENCE)
    deadline = clock.Deadline(PATIENCE)
    while not Lending.opened[-1].is_closed and not deadline.expired:
        clock.sleep(0.001)
    assert Lending.opened[-1].is_closed


def test_it_goes_on_when_the_connection_is_lost(client: ResultClient) -> None:
    listener = Lending.opened[-1]

    def lose() -> None:
        raise ConnectionError("lost")

    listener.at_wait = lose
    later(client.store, success("task", 1))

    assert value_of(client.wait("task", timeout=PATIENCE)) == 1
    assert listener.is_closed
    assert len(Lending.opened) == 2


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), ValueError("of a signal's handler")])
def test_what_interrupts_it_spoils_no_later_wait(
    client: ResultClient, reason: BaseException
) -> None:
    listener = Lending.opened[-1]

    def interrupt() -> None:
        raise reason

    listener.at_wait = interrupt
    with pytest.raises(type(reason)):
        client.wait("task", timeout=PATIENCE)
    assert listener.is_closed

    later(client.store, success("task", 1))
    assert value_of(client.wait("task", timeout=PATIENCE)) == 1


def test_a_listener_that_is_not_given_back_is_replaced(client: ResultClient) -> None:
    hub: Any = client.waiting_hub()
    lost: Any = Loan[Record](
        Lending.opened[-1], "lost", lambda: (None, None), hub._decode, hub._is_ended, ()
    )
    hub._lender.loan = lost  # its thread was ended in the midst of it
    later(client.store, success("task", 1))

    assert value_of(client.wait("task", timeout=PATIENCE)) == 1
    assert len(Lending.opened) == 2


def test_a_listener_that_is_not_given_back_is_replaced_however_many_come(
    client: ResultClient,
) -> None:
    hub: Any = client.waiting_hub()
    hub._lender.loan = Loan[Record](
        Lending.opened[-1], "lost", lambda: (None, None), hub._decode, hub._is_ended, ()
    )
    client.store(success("task", 1))
    deadline = clock.Deadline(PATIENCE / 4)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(client.wait, "task", timeout=PATIENCE, look=False)
        while not wait.done() and not deadline.expired:
            with pytest.raises(ResultTimeoutError):
                client.wait("other", timeout=0.6)

    assert not deadline.expired
    assert value_of(wait.result(0)) == 1


def test_forgetting_ends_a_wait_that_is_about_to_go_on_elsewhere(client: ResultClient) -> None:
    listener = Lending.opened[-1]

    def crowd() -> None:
        listener.at_wait = lambda: None
        client.forget(["task"])
        ListenerLayer.wait(listener, 0.0)  # the service's own news of it get lost
        hub: Any = client.waiting_hub()
        hub.watch(["other"], ThreadSink[Record]())

    listener.at_wait = crowd
    with pytest.raises(ResultForgottenError):
        client.wait("task", timeout=1.0)


def test_forgetting_ends_a_wait_whose_connection_is_lost(client: ResultClient) -> None:
    listener = Lending.opened[-1]

    def lose() -> None:
        client.forget(["task"])
        raise ConnectionError("lost")

    listener.at_wait = lose
    with pytest.raises(ResultForgottenError):
        client.wait("task", timeout=1.0)


def test_a_listener_is_not_used_again_once_its_service_is_away(client: ResultClient) -> None:
    assert isinstance(client.backend, Lends)
    client.backend.is_away, listener = True, Lending.opened[-1]
    client.newest = "task"
    with pytest.raises(ResultTimeoutError):
        client.wait("task", timeout=0.6)

    assert listener.is_closed


def test_a_wait_in_the_midst_of_another_takes_no_longer(client: ResultClient) -> None:
    listener = Lending.opened[-1]
    found: list[object] = []

    def handle() -> None:  # as a signal's handler may
        listener.at_wait = lambda: None
        later(client.store, success("inner", 1))
        found.append(value_of(client.wait("inner", timeout=1.5)))
        client.store(success("outer", 2))

    listener.at_wait = handle
    assert value_of(client.wait("outer", timeout=PATIENCE)) == 2
    assert found == [1]
    assert listener.is_closed


@pytest.mark.parametrize(("timeout", "is_new"), [(0.1, False), (0.1, True), (0.6, True)])
def test_a_wait_in_vain_tells_that_nothing_could_be_read(
    client: ResultClient, timeout: float, is_new: bool
) -> None:
    assert isinstance(client.backend, Lends)
    client.newest = "task" if is_new else ""
    client.backend.is_away = True

    with pytest.raises(ResultTimeoutError) as caught:
        client.wait("task", timeout=timeout)
    assert isinstance(caught.value.__cause__, ServiceUnavailableError)


def test_a_wait_for_many_tells_what_its_first_look_met(
    client: ResultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub, which looks as well, has had no answer yet when the wait ends."""
    assert isinstance(client.backend, Lends)
    client.backend.is_away, met = True, ServiceUnavailableError("away")

    def ended(*_: object) -> tuple[dict[str, Record | UpshotError], UpshotError | None]:
        return {}, met

    monkeypatch.setattr(type(client.reader), "ended", ended)

    with pytest.raises(ResultTimeoutError) as caught:
        list(client.wait_many(["one", "two"], timeout=0.1))
    assert caught.value.__cause__ is met


def test_a_wait_in_vain_ends_in_time_and_leaves_nothing(client: ResultClient) -> None:
    began = clock.monotonic()
    with pytest.raises(ResultTimeoutError):
        client.wait("task", timeout=0.5)

    assert 0.5 <= clock.monotonic() - began < PATIENCE / 2
    assert client.stats() == {"keys": 0, "waiters": 0, "threads": 1, "listeners": 1}
