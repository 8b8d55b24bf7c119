"""Where results end up in the submitter: the guard, what expires, what nobody expects."""

from __future__ import annotations

import logging
import threading

import pytest

from upshot import clock
from upshot.listening import Hint
from upshot.states import NEVER
from upshot_backends.amqp import mailbox as module
from upshot_backends.amqp.mailbox import Mailbox
from upshot_backends.amqp.replies import Reply


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as its only item, to be set."""
    moment = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: moment[0])
    return moment


def reply(
    key: str, body: bytes = b"body", *, rank: int = 20, ends: bool = False, expires: float = 60.0
) -> Reply:
    return Reply(key, body, rank, NEVER if ends else rank, expires)


def test_the_guard_lets_later_records_through_and_nothing_after_the_end(mailbox: Mailbox) -> None:
    assert mailbox.put(reply("a", b"queued", rank=17), expected=True)
    assert mailbox.put(reply("a", b"started", rank=20), expected=False)
    assert not mailbox.put(reply("a", b"late", rank=17), expected=False)
    assert mailbox.put(reply("a", b"ended", rank=31, ends=True), expected=False)
    assert not mailbox.put(reply("a", b"again", rank=31, ends=True), expected=False)
    assert mailbox.get(["a", "b"]) == [b"ended", None]


def test_one_of_many_threads_ends_a_task(mailbox: Mailbox) -> None:
    barrier = threading.Barrier(8)
    applied: list[bool] = []

    def end(number: int) -> None:
        barrier.wait()
        applied.append(mailbox.put(reply("a", b"%d" % number, ends=True), expected=False))

    threads = [threading.Thread(target=end, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(applied) == [False] * 7 + [True]


def test_a_record_is_there_until_its_time_is_up(mailbox: Mailbox, now: list[float]) -> None:
    mailbox.put(reply("a", expires=5.0), expected=True)

    now[0] += 4.999
    assert mailbox.get(["a"]) == [b"body"]
    assert not mailbox.put(reply("a", b"refused", rank=1, expires=500.0), expected=True)

    now[0] += 0.001
    assert mailbox.get(["a"]) == [None]
    assert mailbox.put(reply("a", b"anew", rank=1), expected=True)


def test_what_expired_unread_is_swept(now: list[float], mailbox: Mailbox) -> None:
    mailbox.put(reply("a", expires=5.0), expected=True)
    now[0] += 120.0

    mailbox.put(reply("b"), expected=True)

    assert mailbox.keys("") == ["b"]


def test_of_what_nobody_expects_the_oldest_is_dropped(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MOST_UNEXPECTED", 3)
    mailbox.put(reply("mine", b"queued", rank=17), expected=True)

    with caplog.at_level(logging.WARNING):
        for number in range(10):
            mailbox.put(reply(f"stray-{number}", ends=True), expected=False)
    mailbox.put(reply("mine", b"ended", ends=True), expected=False)

    assert mailbox.keys("stray") == ["stray-7", "stray-8", "stray-9"]
    assert mailbox.get(["mine"]) == [b"ended"]
    assert len(caplog.records) == 1


def test_of_what_nobody_expects_only_so_many_bytes_are_kept(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNEXPECTED_BYTES", 100)
    for number in range(5):
        mailbox.put(reply(f"stray-{number}", b"x" * 40), expected=False)
    assert mailbox.keys("") == ["stray-3", "stray-4"]

    mailbox.put(reply("stray-3", b"x" * 60, ends=True), expected=False)  # replaced, not added

    assert mailbox.keys("") == ["stray-4", "stray-3"]


def test_as_many_results_as_were_asked_for_are_kept(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_UNEXPECTED", 3)
    monkeypatch.setattr(module, "_UNEXPECTED_BYTES", 100)
    keys = [f"mine-{number}" for number in range(50)]
    for key in keys:
        mailbox.put(reply(key, b"queued", rank=17), expected=True)

    for key in keys:
        mailbox.put(reply(key, b"x" * 40, ends=True), expected=False)

    assert mailbox.get(keys) == [b"x" * 40] * 50


def test_a_forgotten_key_is_expected_no_more(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_UNEXPECTED", 1)
    for key in ("a", "b"):
        mailbox.put(reply(key, rank=17), expected=True)
    mailbox.delete(["a", "b", "never there"])

    for key in ("a", "b"):
        mailbox.put(reply(key, ends=True), expected=False)

    assert mailbox.keys("") == ["b"]


def test_a_listener_hears_ends_and_deletions_of_what_it_subscribed_to(mailbox: Mailbox) -> None:
    listener = mailbox.listen()
    listener.subscribe(["a", "b"])
    listener.unsubscribe(["b"])

    mailbox.put(reply("a", b"started"), expected=True)
    mailbox.put(reply("b", b"ended", ends=True), expected=True)
    mailbox.put(reply("a", b"ended", ends=True), expected=True)
    mailbox.delete(["a"])

    assert listener.wait(0) == [Hint("a", b"ended"), Hint("a", b"")]
    listener.close()
    mailbox.delete(["a"])
    assert listener.wait(0) == []


def test_an_interrupt_ends_the_next_wait_too(mailbox: Mailbox) -> None:
    listener = mailbox.listen()
    listener.interrupt()

    assert listener.wait(60) == []


def test_a_child_knows_what_was_finished_and_no_more(mailbox: Mailbox) -> None:
    mailbox.put(reply("ended", ends=True), expected=True)
    mailbox.put(reply("running"), expected=True)

    child = Mailbox(mailbox.finished())
    child.delete(["ended"])

    assert mailbox.get(["ended", "running"]) == [b"body", b"body"]
    assert child.keys("") == []
