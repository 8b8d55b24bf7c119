"""Apps with keys: what their workers run and refuse, and what becomes of the tasks."""

from __future__ import annotations

import asyncio
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upshot import App, clock, current_task
from upshot.broker import QueuedMessage, QueueStatus
from upshot.errors import (
    ConfigError,
    KeyMissingError,
    PayloadMissingError,
    PayloadTooLargeError,
    ResultTimeoutError,
    TamperedMessageError,
    TamperedRecordError,
)
from upshot.keyring import new_key
from upshot.message import Message
from upshot.record import Payload, Record
from upshot.sending import queued
from upshot.states import State

KEY, OTHER = new_key("a"), new_key("b")
NAME = "priced"


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def make(url: str, **settings: Any) -> App:
    app = App(broker=url, backend=url, no_worker_warning=None, **settings)

    @app.task(name=NAME)
    def price(item: str) -> str:
        return f"{item} costs 1"

    @app.task(name="fails", max_retries=1, retry_backoff=0.0, autoretry_for=(ValueError,))
    def fails(text: str) -> None:
        current_task().progress(1, len(text))
        raise ValueError(text)

    return app


@pytest.fixture
def signing(url: str) -> Iterator[App]:
    with make(url, signing_keys=[KEY], encryption_keys=[OTHER]) as app:
        yield app


@pytest.fixture
def stranger(url: str) -> Iterator[App]:
    with make(url) as app:
        yield app


def status(app: App) -> QueueStatus:
    return app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))["default"]


def dead(app: App, count: int) -> bool:
    deadline = clock.Deadline(20)
    while status(app).dead < count and not deadline.expired:
        clock.sleep(0.01)
    return status(app).dead == count


def publish(app: App, *parcels: QueuedMessage) -> None:
    app.broker.call(lambda broker, seconds: broker.publish(parcels, (), seconds))


def message(task_id: str, **fields: Any) -> Message:
    arguments = Payload("json", b'[["shoe"],{}]')
    return Message(task_id=task_id, name=NAME, arguments=arguments, queue="default", **fields)


def test_values_failures_retries_and_progress_come_home(signing: App) -> None:
    with signing.running():
        assert signing.send_task(NAME, ["shoe"]).get(timeout=20) == "shoe costs 1"
        failed = signing.send_task("fails", ["hat"])
        with pytest.raises(ValueError, match="hat"):
            failed.get(timeout=20)

    assert failed.attempts == 2
    assert failed.info == {"current": 1, "total": 3}


def test_a_message_without_a_signature_is_not_run(signing: App, stranger: App) -> None:
    sent = stranger.send_task(NAME, ["shoe"])

    with signing.running():
        assert dead(signing, 1)

    assert sent.state == State.QUEUED
    with pytest.raises(TamperedRecordError, match="not signed"):
        signing.results.load(sent.id)


def test_a_forged_message_ends_no_task_that_has_begun(signing: App) -> None:
    task_id = uuid.uuid4().hex
    begun = Record(task_id, State.STARTED, started_at=clock.now(), name=NAME)
    signing.results.store(begun)
    publish(signing, queued(message(task_id)), queued(message("never-sent")))

    with signing.running():
        assert dead(signing, 2)

    assert signing.results.load(task_id) == begun
    assert signing.results.load("never-sent") is None


def test_a_changed_message_ends_its_task_that_waits(signing: App) -> None:
    task_id = uuid.uuid4().hex
    signing.results.store(Record(task_id, State.QUEUED, queued_at=clock.now(), name=NAME))
    genuine = queued(message(task_id), signing.host().sealing)
    changed = genuine.body[:-1] + bytes([genuine.body[-1] ^ 1])
    publish(signing, QueuedMessage(message_id="x/1", queue="default", body=changed))

    with signing.running(), pytest.raises(TamperedMessageError, match="signature is wrong"):
        signing.AsyncResult(task_id).get(timeout=20)


def test_a_message_of_another_queue_is_not_run(signing: App) -> None:
    task_id = uuid.uuid4().hex
    genuine = queued(message(task_id)._replace(queue="slow"), signing.host().sealing)
    publish(signing, QueuedMessage(message_id="x/1", queue="default", body=genuine.body))

    with signing.running():
        assert dead(signing, 1)
    assert signing.AsyncResult(task_id).state == State.PENDING


def test_no_pickle_of_a_stranger_is_loaded(url: str, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    gadget = pickle.dumps(Gadget(trap))
    settings = {"accept_content": ["json", "pickle"], "task_serializer": "pickle"}
    with make(url, signing_keys=[KEY], **settings) as app:
        publish(app, queued(message("forged")._replace(arguments=Payload("pickle", gadget))))
        with app.running():
            assert dead(app, 1)
            assert app.send_task(NAME, ["shoe"]).get(timeout=20) == "shoe costs 1"

    assert not trap.exists()


class Gadget:
    """Unpickles as a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")


def test_a_worker_without_the_key_of_the_arguments_lets_the_task_fail(url: str) -> None:
    with (
        make(url, signing_keys=[KEY], encryption_keys=[OTHER]) as sender,
        make(url, signing_keys=[KEY]) as worker,
    ):
        handle = sender.send_task(NAME, ["shoe"])
        with worker.running(), pytest.raises(TamperedRecordError, match="not encrypted"):
            handle.get(timeout=20)
        with pytest.raises(KeyMissingError, match="'b'"):
            worker.AsyncResult(handle.id).get(timeout=20)


def test_switching_keys_on_loses_nothing(url: str) -> None:
    with make(url) as old, make(url, signing_keys=[KEY], accept_unsealed=True) as new:
        first, second = old.send_task(NAME, ["shoe"]), new.send_task(NAME, ["hat"])
        with old.running():
            assert first.get(timeout=20) == "shoe costs 1"
            assert second.get(timeout=20) == "hat costs 1"
        third = old.send_task(NAME, ["coat"])
        with new.running():
            assert third.get(timeout=20) == "coat costs 1"


def test_a_result_is_put_elsewhere_and_comes_back_also_to_coroutines(
    url: str, tmp_path: Path
) -> None:
    with make(
        url,
        result_offload=f"file://{tmp_path}/large",
        result_offload_threshold=1000,
        result_compression="gzip",
        signing_keys=[KEY],
        encryption_keys=[OTHER],
    ) as app:
        text = "".join(uuid.uuid4().hex for _ in range(1000))
        with app.running():
            handle = app.send_task(NAME, [text])
            assert handle.get(timeout=20) == f"{text} costs 1"
            assert asyncio.run(handle.aget(timeout=20)) == f"{text} costs 1"
            assert asyncio.run(app.ResultSet([handle.id]).aget(timeout=20)) == [f"{text} costs 1"]
        (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
        file.unlink()
        with pytest.raises(PayloadMissingError):
            handle.get(timeout=20)
        assert handle.state == State.SUCCESS
        handle.forget()


def test_a_result_that_nobody_could_read_ends_its_task_with_what_to_do(url: str) -> None:
    with make(url, result_max_bytes=2000, result_offload="file:///nowhere/at/all") as app:
        app.results.backend.capabilities = app.results.capabilities
        with app.running(), pytest.raises(PayloadTooLargeError, match="result_max_bytes"):
            app.send_task(NAME, ["x" * 3000]).get(timeout=20)


def test_a_folder_that_cannot_be_made_is_waited_for(url: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"")
    with make(
        url, result_offload=f"file://{tmp_path}/large/x", result_offload_threshold=0
    ) as app, app.running():  # fmt: skip
        handle = app.send_task(NAME, ["shoe"])
        with pytest.raises(ResultTimeoutError):
            handle.get(timeout=0.5)
        (tmp_path / "large").unlink()
        assert handle.get(timeout=20) == "shoe costs 1"


def test_keys_that_are_wrong_are_an_error_before_anything_is_sent(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        App(signing_keys=["x"])
    with (
        make(url, signing_keys=[f"file:{tmp_path}/none"]) as app,
        pytest.raises(ConfigError, match="cannot read"),
    ):
        app.send_task(NAME, ["shoe"])


def test_what_is_configured_is_shown_without_keys(signing: App) -> None:
    shown = {each.setting.name: each.value for each in signing.configuration.explain()}

    assert shown["signing_keys"] == ("a:***",)
    assert KEY[3:15] not in repr(signing.settings) + repr(signing.host()) + str(shown)


def test_a_claim_of_a_key_does_not_pass_for_the_record_of_a_task(signing: App) -> None:
    signing.send_task(NAME, ["shoe"], key="order-1")
    client = signing.results
    (claim,) = client.reader.bodies([client.keys.claim(NAME, "order-1")])
    assert claim is not None
    record = client.encode(Record("order-1", "SUCCESS", outcome=Payload("json", b"1")))

    client.store_encoded([record._replace(body=claim)])

    with pytest.raises(TamperedRecordError, match="belongs to another"):
        client.load("order-1")
    assert signing.send_task(NAME, ["shoe"], key="order-1").is_repeat


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_what_no_reader_would_take_is_a_failure_and_no_success(
    url: str, compression: str | None
) -> None:
    with make(url, result_max_bytes=100_000, result_compression=compression) as app, app.running():
        handle = app.send_task(NAME, ["x" * 200_000])

        with pytest.raises(PayloadTooLargeError, match="result_max_bytes allows at most 100000"):
            handle.get(timeout=20)
        assert handle.state == State.FAILURE


@pytest.mark.parametrize("settings", [{}, {"encryption_keys": [KEY]}])
def test_a_claim_that_cannot_be_decrypted_here_is_not_said_to_be_broken(
    signing: App, url: str, settings: dict[str, Any]
) -> None:
    sent = signing.send_task(NAME, ["shoe"], key="order-1")

    with (
        make(url, signing_keys=[KEY], **settings) as other,
        pytest.raises(KeyMissingError, match="encryption_keys") as missing,
    ):
        other.send_task(NAME, ["shoe"], key="order-1")

    assert "forget_key" not in str(missing.value), "another task would be sent for the key"
    assert signing.send_task(NAME, ["shoe"], key="order-1").id == sent.id
