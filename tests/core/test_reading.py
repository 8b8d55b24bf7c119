"""Reading from a service of several servers, one of which is down: the others still answer."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ResultTimeoutError, ServiceRejectedError, ServiceUnavailableError
from upshot.record import Payload, Record
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.memory.results import MemoryBackend

_PATIENCE = 30.0  # seconds for what should happen at once


class _TwoServers(Backend):
    """Answers for ids that begin with "b" as a server that is down would, while `down` is set."""

    driver_errors: ClassVar = DriverErrors(transient=(OSError,), permanent=(ValueError,))
    down: ClassVar[Exception | None] = None

    def __init__(self, url: Url) -> None:
        self._below = MemoryBackend(url)
        self.capabilities = replace(MemoryBackend.capabilities, push=False)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return self._below.store(records, timeout)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        bodies = self._below.load(keys, timeout)
        return [
            self.down or body if ":b" in key else body
            for key, body in zip(keys, bodies, strict=True)
        ]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self._below.delete(keys, timeout)

    def close(self) -> None:
        self._below.close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultClient]:
    monkeypatch.setattr(_TwoServers, "down", OSError("b is down"))
    url = Url.parse(f"memory://{uuid.uuid4().hex}")

    def make() -> Backend:
        return _TwoServers(url)

    with ResultClient(make, url=url, timeout=0.2) as opened:
        opened.store_many([_finished(each) for each in ("a1", "a2", "b1")])
        yield opened


def _finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", b"1"))


def test_reading_raises_as_long_as_anything_cannot_be_read(
    client: ResultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceUnavailableError, match="b is down"):
        client.load_many(["a1", "b1"])
    assert client.load_many(["a1", "a2"]) == [_finished("a1"), _finished("a2")]
    monkeypatch.setattr(_TwoServers, "down", None)
    assert client.load_many(["a1", "b1"]) == [_finished("a1"), _finished("b1")]


def test_one_look_yields_what_can_be_read_and_says_why_the_rest_cannot(
    client: ResultClient,
) -> None:
    found: list[str] = []

    with pytest.raises(ResultTimeoutError, match=r"'b1' did not end.*b is down"):
        found.extend(task_id for task_id, _ in client.wait_many(["b1", "a1"], timeout=0))
    assert found == ["a1"]


def test_a_wait_goes_on_until_the_server_is_back(
    client: ResultClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    found: list[str] = []
    both = threading.Event()

    def wait() -> None:
        for task_id, _ in client.wait_many(["b1", "a1", "a3"], timeout=_PATIENCE):
            found.append(task_id)
            if len(found) == 2:
                both.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    client.store(_finished("a3"))
    assert both.wait(_PATIENCE)
    assert sorted(found) == ["a1", "a3"]
    deadline = Deadline(_PATIENCE)
    while not caplog.records and not deadline.expired:
        both.wait(0.01)
    monkeypatch.setattr(_TwoServers, "down", None)
    waiting.join()

    assert found[2:] == ["b1"]
    assert [each.message.count("b is down") for each in caplog.records] == [1]


def test_what_no_retry_helps_is_raised_and_ends_no_other_wait(
    client: ResultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_TwoServers, "down", ValueError("b refuses"))

    with pytest.raises(ServiceRejectedError, match="b refuses"):
        client.load_many(["a1", "b1"])
    assert client.wait("a1", timeout=_PATIENCE) == _finished("a1")


def test_a_look_at_many_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    load = MemoryBackend.load

    def slow_load(
        backend: MemoryBackend, keys: Sequence[str], timeout: float
    ) -> Sequence[bytes | None]:
        clock.sleep(0.3)
        return load(backend, keys, timeout)

    monkeypatch.setattr(MemoryBackend, "load", slow_load)
    url = Url.parse("memory://slow-look")
    with ResultClient(lambda: MemoryBackend(url), url=url) as client:
        began = clock.monotonic()
        with pytest.raises(ResultTimeoutError):
            list(client.wait_many([f"id-{n}" for n in range(20_000)], timeout=0))
        spent = clock.monotonic() - began

    assert spent < 20 * 0.3 / 2


def test_an_enumeration_holds_few_records_that_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = MemoryBackend.load, list[int]()

    def measured(
        backend: MemoryBackend, keys: Sequence[str], timeout: float
    ) -> Sequence[bytes | None]:
        bodies = load(backend, keys, timeout)
        loaded.append(sum(len(body or b"") for body in bodies))
        return bodies

    monkeypatch.setattr(MemoryBackend, "load", measured)
    url, large = Url.parse("memory://long-records"), Payload("json", b"1" * 2**20)
    with ResultClient(lambda: MemoryBackend(url), url=url) as client:
        for number in range(40):
            client.store(_finished(f"a{number}")._replace(outcome=large))

        assert sum(1 for _ in client.scan()) == 40

    assert sum(loaded) > 40 * 2**20
    assert max(loaded) <= 32 * 2**20
