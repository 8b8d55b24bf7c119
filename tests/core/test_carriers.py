"""A backend that carries results instead of storing them: what the core does for it."""

from __future__ import annotations

import pickle
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from upshot import App, registry
from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.cli.entry import upshot
from upshot.errors import ConfigError, UnsupportedError
from upshot.url import Url
from upshot_backends.memory.broker import MemoryBroker
from upshot_backends.memory.results import MemoryBackend

SENT: list[tuple[str, str]] = []


class CarryingBackend(MemoryBackend):
    """Keeps records like its base class, notes where each was sent, and has an address."""

    over_broker = True
    reply_to = "the submitter"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        SENT.extend((record.state, record.reply_to) for record in records)
        return super().store(records, timeout)


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Offer the backend as `carry://`, like an installed distribution would."""
    module = ModuleType("upshot_carrier")
    module.CarryingBackend = CarryingBackend  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "upshot_carrier", module)
    info = tmp_path / "upshot_carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: upshot-carrier\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[upshot.backends]\ncarry = upshot_carrier:CarryingBackend\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    registry.offers.cache_clear()
    SENT.clear()
    yield
    registry.offers.cache_clear()


@pytest.fixture
def app(carrier: None) -> Iterator[App]:
    name = uuid.uuid4().hex
    with App("shop", broker=f"memory://{name}", backend=f"carry://{name}") as app:
        yield app


def test_every_record_of_a_task_is_sent_where_its_message_says(app: App) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.running():
        assert add.delay(1, 2).get(timeout=10) == 3

    assert SENT == [
        ("QUEUED", "the submitter"),
        ("STARTED", "the submitter"),
        ("SUCCESS", "the submitter"),
    ]


def test_what_is_to_come_is_recorded_even_if_the_setting_says_no(carrier: None) -> None:
    name = uuid.uuid4().hex
    with App(broker=f"memory://{name}", backend=f"carry://{name}", task_track_queued=False) as app:
        app.send_task("shop.add", [1, 2])

    assert SENT == [("QUEUED", "the submitter")]


def test_a_task_without_a_result_sends_none(carrier: None) -> None:
    name = uuid.uuid4().hex
    with App(broker=f"memory://{name}", backend=f"carry://{name}") as app:
        app.send_task("shop.add", [1, 2], ignore_result=True)

    assert SENT == []


def test_a_key_is_refused_before_anything_is_sent(app: App) -> None:
    with pytest.raises(UnsupportedError, match="keeps no keys") as refused:
        app.send_task("shop.add", [1, 2], key="k")
    with pytest.raises(UnsupportedError, match="keeps no keys"):
        app.forget_key("shop.add", "k")

    assert SENT == []
    assert refused.value.task_ids == ()


def test_a_revocation_goes_to_the_submitter(app: App) -> None:
    result = app.send_task("shop.add", [1, 2])

    assert result.revoke()
    assert SENT[-1] == ("REVOKED", "the submitter")


def test_a_handle_of_a_task_that_was_submitted_elsewhere_is_refused_at_once(app: App) -> None:
    with pytest.raises(UnsupportedError, match="not submitted by this one"):
        app.AsyncResult("somebody-elses")
    with pytest.raises(UnsupportedError, match="somebody-elses"):
        app.ResultSet(["somebody-elses"])

    here = app.send_task("shop.add", [1, 2])
    assert app.AsyncResult(here.id) == here


def test_an_unpickled_handle_is_refused_where_its_task_was_not_submitted(app: App) -> None:
    handle = app.send_task("shop.add", [1, 2])
    pickled = pickle.dumps(handle)
    handle.forget()  # as if this were another process, which never heard of it

    with pytest.raises(UnsupportedError, match="not submitted by this one"):
        pickle.loads(pickled).get()


def test_a_url_without_a_host_means_the_brokers_connection(carrier: None) -> None:
    url = registry.results_url(Url.parse("carry://"), Url.parse("carry://user@host//"))
    named = registry.results_url(Url.parse("carry://other"), Url.parse("carry://user@host//"))

    assert url == Url.parse("carry://user@host//")
    assert named == Url.parse("carry://other")


@pytest.mark.parametrize("broker", ["memory://", "nobody://host"])
def test_a_url_without_a_host_is_refused_over_a_broker_of_another_kind(
    carrier: None, broker: str
) -> None:
    with pytest.raises(ConfigError, match="cannot carry them: name the service, as carry://"):
        registry.results_url(Url.parse("carry://"), Url.parse(broker))


@pytest.mark.parametrize("rest", ["?heartbeat=5", "?upshot_reply_expires=60", "/vhost", "me@"])
def test_the_rest_of_a_url_without_a_host_is_refused_and_not_forgotten(
    carrier: None, rest: str
) -> None:
    with pytest.raises(ConfigError, match="write the rest of it there"):
        registry.results_url(Url.parse(f"carry://{rest}"), Url.parse("carry://host//"))


def test_many_tasks_leave_a_thousand_at_a_time(
    carrier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    publish = MemoryBroker.publish

    def noted(
        broker: MemoryBroker,
        messages: Sequence[QueuedMessage],
        records: Sequence[StoredRecord],
        timeout: float,
    ) -> None:
        lengths.append(len(messages))
        publish(broker, messages, records, timeout)

    monkeypatch.setattr(MemoryBroker, "publish", noted)
    name = uuid.uuid4().hex
    with App(broker=f"memory://{name}", backend=f"memory://{name}") as app:

        @app.task
        def nothing(n: int) -> None: ...

        handles = nothing.map(range(2500))
        assert {record.state for record in app.results.scan()} == {"QUEUED"}

    assert lengths == [1000, 1000, 500]
    assert len(handles) == 2500


def test_the_command_line_refuses_what_only_another_process_can_read(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("carried")
    module.app = app  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "carried", module)

    outcome = CliRunner().invoke(upshot, ["-A", "carried", "result", "somebody-elses"])

    assert isinstance(outcome.exception, UnsupportedError)
    assert outcome.stdout == ""
