"""Calls with idempotency keys: what they send, what they refuse, and what they leave."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from upshot import App, State, clock
from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.claims import Claims
from upshot.errors import ConfigError, EncodeError, ServiceRejectedError, ServiceUnavailableError
from upshot.request import Request
from upshot_backends.memory.broker import MemoryBroker
from upshot_backends.memory.results import MemoryBackend
from upshot_conformance.concurrency import together

BRIEF = 0.3
"""Seconds that one call may take in the apps of this file, where no service is slow."""


def new_app(**settings: Any) -> App:
    url = f"memory://{uuid.uuid4().hex}"
    return App("shop", broker=url, backend=url, operation_timeout=BRIEF, **settings)


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose services nobody else sees."""
    with new_app() as app:
        yield app


def waiting(app: App) -> int:
    """Return how many messages wait in the default queue."""
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    return status["default"].ready + status["default"].delayed


def listed(app: App) -> list[str]:
    """Return the ids that have a record."""
    return [record.task_id for record in app.results.scan()]


def test_a_repeated_call_returns_the_task_that_the_first_one_sent(app: App) -> None:
    runs: list[int] = []

    @app.task
    def charge(invoice: int) -> int:
        runs.append(invoice)
        return invoice

    first = charge.apply_async((42,), key="invoice-42")
    waits = charge.apply_async((42,), key="invoice-42")
    with app.running():
        assert first.get(timeout=10) == 42
        ended = charge.apply_async((43,), key="invoice-42")

        assert ended.get(timeout=10) == 42
        assert charge.apply_async((43,), key="invoice-43").get(timeout=10) == 43
    assert waits == ended == first
    assert [each.is_repeat for each in (first, waits, ended)] == [False, True, True]
    assert runs == [42, 43]


def test_of_many_threads_one_sends(app: App) -> None:
    calls = [partial(app.send_task, "shop.charge", [n], key="k") for n in range(50)]

    handles = together(calls, within=30)

    assert len({handle.id for handle in handles}) == 1
    assert [handle.is_repeat for handle in handles].count(False) == 1
    assert waiting(app) == 1
    assert listed(app) == [handles[0].id]


def test_each_task_has_keys_of_its_own(app: App) -> None:
    handles = [app.send_task(name, key="k") for name in ("shop.charge", "shop.receipt")]

    assert handles[0] != handles[1]
    assert waiting(app) == 2


def test_a_failed_task_keeps_its_key_until_it_is_released(app: App) -> None:
    @app.task
    def charge() -> None:
        raise ValueError("no money")

    with app.running():
        first = charge.apply_async(key="k")
        assert isinstance(first.exception(timeout=10), ValueError)

        again = charge.apply_async(key="k")
        app.forget_key(charge.name, "k")
        app.forget_key(charge.name, "k")
        anew = charge.apply_async(key="k")

        assert again == first
        assert anew != first
        assert not anew.is_repeat
        assert isinstance(anew.exception(timeout=10), ValueError)


def test_forgetting_the_result_does_not_run_the_task_again(app: App) -> None:
    with app.send_task("shop.charge", key="k") as first:
        pass

    again = app.send_task("shop.charge", key="k")

    assert (again.id, again.is_repeat, again.state) == (first.id, True, State.PENDING)
    assert waiting(app) == 1


def test_a_key_is_free_when_its_time_is_over() -> None:
    with new_app(task_key_expires=0.05) as app:
        handles = [app.send_task("shop.charge", key=key, **more) for key, more in _TIMES]
        clock.sleep(0.06)
        again = [app.send_task("shop.charge", key=key) for key, _ in _TIMES]

        assert [one == two for one, two in zip(handles, again, strict=True)] == [False, True, True]


_TIMES: list[tuple[str, dict[str, Any]]] = [
    ("as set", {}),
    ("long", {"key_expires": 100}),
    ("for ever", {"key_expires": None}),
]


def test_an_id_is_for_a_task_that_is_new(app: App) -> None:
    first = app.send_task("shop.charge", key="k", task_id="mine")
    again = app.send_task("shop.charge", key="k", task_id="mine")
    other = app.send_task("shop.charge", key="k", task_id="another")

    assert [each.id for each in (first, again, other)] == ["mine"] * 3
    assert [each.is_repeat for each in (first, again, other)] == [False, True, True]
    assert listed(app) == ["mine"]


def test_a_batch_claims_its_keys_at_once_and_keeps_its_order(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []
    store = MemoryBackend.store

    def counting(
        self: MemoryBackend, records: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        stored.append(len(records))
        return store(self, records, timeout)

    taken = app.send_task("shop.charge", key="b")
    monkeypatch.setattr(MemoryBackend, "store", counting)
    keys = ["a", "b", None, "a", "c"]
    handles = app.send(
        [Request(name="shop.charge", args=[n], key=key) for n, key in enumerate(keys)]
    )

    assert [each.is_repeat for each in handles] == [False, True, False, True, False]
    assert handles[1] == taken
    assert handles[3] == handles[0]
    assert len({handle.id for handle in handles}) == 4
    assert waiting(app) == 4
    assert stored == [3, 3, 2], "the claims, the records of what is sent, the notes that it is"


def test_without_a_key_nothing_is_claimed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("a call without a key looked at keys")

    monkeypatch.setattr(Claims, "__init__", touched)

    assert not app.send_task("shop.charge").is_repeat


def test_a_handle_keeps_what_it_knows_to_itself(app: App) -> None:
    app.send_task("shop.charge", key="k")
    again = app.send_task("shop.charge", key="k")

    assert again.is_repeat
    assert not pickle.loads(pickle.dumps(again)).is_repeat
    assert not app.AsyncResult(again.id).is_repeat


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "x" * 256, "é" * 128, "a\nb", "\ud800", 42, b"k"], ids=repr)
def test_what_can_be_no_key_is_refused_before_any_io(
    app: App, monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    monkeypatch.delattr(MemoryBackend, "store")

    with pytest.raises(ConfigError, match=r"^a key "):
        app.send_task("shop.charge", key=key)
    with pytest.raises(ConfigError, match=r"^a key "):
        app.forget_key("shop.charge", key)


@pytest.mark.parametrize("expires", [0, -2, "1", float("inf"), float("nan"), True], ids=repr)
def test_what_can_be_no_time_is_refused(app: App, expires: Any) -> None:
    with pytest.raises(ConfigError, match="key_expires"):
        app.send_task("shop.charge", key="k", key_expires=expires)


def test_a_time_without_a_key_is_refused(app: App) -> None:
    with pytest.raises(ConfigError, match="give a key, too"):
        app.send_task("shop.charge", key_expires=60)
    with pytest.raises(ConfigError, match="give a key, too"):
        app.send_task("shop.charge", key_expires=None)


def test_a_task_that_keeps_no_result_takes_no_key(app: App) -> None:
    @app.task(ignore_result=True)
    def quiet() -> None:
        pass

    for send in (quiet.apply_async, partial(app.send_task, "shop.charge", ignore_result=True)):
        with pytest.raises(ConfigError, match="a key is for a task that keeps its result"):
            send(key="k")
    assert waiting(app) == 0
    assert not app.send_task(quiet.name, key="k", ignore_result=False).is_repeat


def test_what_cannot_be_sent_leaves_no_claim(app: App) -> None:
    with pytest.raises(EncodeError):
        app.send_task("shop.charge", [object()], key="k")
    with pytest.raises(ConfigError):
        app.send(
            [Request(name="shop.charge", key="k"), Request(name="shop.charge", queue="", key="l")]
        )

    assert not app.send_task("shop.charge", key="k").is_repeat


# -- what breaks in between -----------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, arrives: bool) -> None:
    """Let the next publishing fail, before or after the messages have arrived."""
    publish = MemoryBroker.publish

    def fail(
        self: MemoryBroker,
        messages: Sequence[QueuedMessage],
        records: Sequence[StoredRecord],
        timeout: float,
    ) -> None:
        monkeypatch.setattr(MemoryBroker, "publish", publish)
        if arrives:
            publish(self, messages, records, timeout)
        raise error

    monkeypatch.setattr(MemoryBroker, "publish", fail)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_call_that_failed_is_repeated_under_the_same_id(
    app: App, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    failing(monkeypatch, ServiceRejectedError("no rights"), arrives=arrives)
    with pytest.raises(ServiceRejectedError) as failed:
        app.send_task("shop.charge", [1], key="k")
    assert "repeat the call with the same key" in failed.value.__notes__[0]
    assert waiting(app) == int(arrives)

    again = app.send_task("shop.charge", [1], key="k")

    assert failed.value.task_ids == (again.id,)
    assert again.is_repeat
    assert waiting(app) == 1
    assert app.send_task("shop.charge", key="k") == again
    assert waiting(app) == 1


def test_of_many_that_find_a_claim_without_a_task_one_sends(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ServiceRejectedError("no rights"), arrives=False)
    with pytest.raises(ServiceRejectedError):
        app.send_task("shop.charge", key="k")
    published: list[str] = []
    publish = MemoryBroker.publish

    def noting(self: MemoryBroker, messages: Sequence[QueuedMessage], *rest: Any) -> None:
        published.extend(message.message_id for message in messages)
        publish(self, messages, *rest)

    monkeypatch.setattr(MemoryBroker, "publish", noting)
    handles = together([partial(app.send_task, "shop.charge", key="k")] * 20, within=30)

    assert len({handle.id for handle in handles}) == 1
    assert published == [f"{handles[0].id}/1"]


def test_a_message_that_was_sent_twice_runs_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    @app.task
    def charge() -> None:
        runs.append(1)

    failing(monkeypatch, ServiceRejectedError("no rights"), arrives=True)
    with pytest.raises(ServiceRejectedError):
        charge.apply_async(key="k")
    again = charge.apply_async(key="k")
    with app.running():
        again.get(timeout=10)
        charge.apply_async(key="other").get(timeout=10)  # what was before it has been settled

    assert runs == [1, 1]


def test_a_note_that_is_lost_is_made_by_the_next_call(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Claims.mark_sent

    def fail(self: Claims, claims: object) -> None:
        monkeypatch.setattr(Claims, "mark_sent", mark)
        raise ServiceUnavailableError("gone for a moment")

    monkeypatch.setattr(Claims, "mark_sent", fail)
    with pytest.raises(ServiceUnavailableError) as failed:
        app.send_task("shop.charge", key="k")

    began = clock.monotonic()
    again = app.send_task("shop.charge", key="k")
    took = clock.monotonic() - began

    assert failed.value.task_ids == (again.id,)
    assert 0 < took <= BRIEF + 5
    assert waiting(app) == 1


def test_claims_that_are_taken_over_again_and_again_are_given_up(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark_none(*_: object) -> None:
        """Be lost before the claim is marked."""

    def is_never_overdue(*_: object) -> bool:
        return False

    monkeypatch.setattr(Claims, "mark_sent", mark_none)
    app.send_task("shop.charge", key="k")
    monkeypatch.setattr(Claims, "_is_overdue", is_never_overdue)

    with pytest.raises(ServiceUnavailableError, match=r"key 'k' of shop.charge was claimed"):
        app.send_task("shop.charge", key="k")
