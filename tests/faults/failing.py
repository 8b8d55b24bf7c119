"""A backend and a broker in memory, of which any one call can be made to fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import pytest

from upshot import clock, registry
from upshot.backend import Backend, StoredRecord
from upshot.broker import Broker, Delivery, QueuedMessage, QueueStatus, Settlement
from upshot.errors import ServiceUnavailableError
from upshot.listening import Listener
from upshot.url import Url
from upshot_backends.memory.broker import MemoryBroker
from upshot_backends.memory.results import MemoryBackend
from upshot_conformance.layer import Layer

__all__ = ["HOOKS", "Fault", "FaultyService", "faulty_services"]

HOOKS: Final = (
    *("store", "load", "delete", "listen"),
    *("publish", "fetch", "settle", "exchange", "beat", "survey"),
)
"""What can fail: the hooks of a backend, then those of a broker."""

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """Which call fails, and how.

    Attributes:
        hook: one of `HOOKS`.
        number: 1 for its first call.
        loses_answer: the call does what it should, and only its caller does not learn of it.
        seconds: how long all later calls of the hook fail, too; 0 for none of them.
    """

    hook: str
    number: int
    loses_answer: bool
    seconds: float

    def __str__(self) -> str:
        what = "answer lost of" if self.loses_answer else "failed"
        return f"{what} {self.hook} {self.number} for {self.seconds} s"


class FaultyService:
    """One service in memory with one fault; counts the calls of each hook.

    Args:
        name: of the service: its URL is `memory://name`.
        fault: None for none.
        is_joined: broker and backend are one, which does in one step what it can.
    """

    def __init__(self, name: str, fault: Fault | None, *, is_joined: bool = False) -> None:
        self.url = f"memory://{name}"
        self.is_joined = is_joined
        self.calls: Counter[str] = Counter()
        self.happened = False
        self._fault = fault
        self._lock = threading.Lock()
        self._until = 0.0
        _FOUND[self.url] = self

    def call(self, hook: str, action: Callable[[], T]) -> T:
        """Run one call of a hook, or let it fail."""
        fails, fault = self._fails(hook), self._fault
        if not fails or fault is None:
            return action()
        if fault.loses_answer:
            action()
        raise ServiceUnavailableError(f"this was to be expected: {fault}")

    def _fails(self, hook: str) -> bool:
        with self._lock:
            self.calls[hook] += 1
            fault = self._fault
            if fault is None or hook != fault.hook or self.calls[hook] < fault.number:
                return False
            if not self.happened:
                self.happened, self._until = True, clock.monotonic() + fault.seconds
                return True
            return clock.monotonic() < self._until


_FOUND: Final[dict[str, FaultyService]] = {}  # by URL


@pytest.fixture
def faulty_services(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let apps find each `FaultyService` behind its URL."""
    monkeypatch.setattr(registry, "backend_class", _backend_class)
    monkeypatch.setattr(registry, "broker_class", _broker_class)
    yield
    _FOUND.clear()


def _backend_class(_: Url) -> Callable[[Url], Backend]:
    return _backend


def _broker_class(_: Url) -> Callable[[Url, str], Broker]:
    return _broker


def _backend(url: Url) -> Backend:
    return FaultyBackend(MemoryBackend(url), _FOUND[url.driver_url()])


def _broker(url: Url, namespace: str) -> Broker:
    service = _FOUND[url.driver_url()]
    kind = JoinedBroker if service.is_joined else FaultyBroker
    return kind(MemoryBroker(url, namespace), service)


class FaultyBackend(Layer):
    """Passes everything on, and fails when the service says so."""

    def __init__(self, below: Backend, service: FaultyService) -> None:
        super().__init__(below)
        self._call = service.call

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return self._call("store", partial(self.below.store, records, timeout))

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return self._call("load", partial(self.below.load, keys, timeout))

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self._call("delete", partial(self.below.delete, keys, timeout))

    def listen(self, timeout: float) -> Listener | None:
        return self._call("listen", partial(self.below.listen, timeout))


class FaultyBroker(Broker):
    """Passes everything on, and fails when the service says so."""

    capabilities = MemoryBroker.capabilities

    def __init__(self, below: Broker, service: FaultyService) -> None:
        self._below = below
        self._call = service.call

    def joins(self, backend: Backend) -> bool:
        return False

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        self._call("publish", partial(self._below.publish, messages, records, timeout))

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        fetch = partial(
            self._below.fetch, queues, limit=limit, wait=wait, lease=lease, worker=worker
        )
        return self._call("fetch", fetch)

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        return self._call("settle", partial(self._below.settle, settlements, timeout))

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        beat = partial(self._below.beat, worker, queues, deliveries, lease=lease, timeout=timeout)
        return self._call("beat", beat)

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        return self._call("survey", partial(self._below.survey, queues, timeout))

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        return self._below.purge(queues, timeout)

    def close(self) -> None:
        self._below.close()


class JoinedBroker(FaultyBroker):
    """Keeps results as well: what is published, or ended, brings its record along."""

    def joins(self, backend: Backend) -> bool:
        self._results = backend
        return True

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        def publish() -> None:
            _below(self._results).store(records, timeout)
            self._below.publish(messages, (), timeout)

        self._call("publish", publish)

    def exchange(
        self,
        settlement: Settlement,
        record: StoredRecord | None,
        queues: Sequence[str],
        *,
        lease: float,
        worker: str,
        timeout: float,
    ) -> tuple[bool, bool, Sequence[Delivery]]:
        def exchange() -> tuple[bool, bool, Sequence[Delivery]]:
            applied = record is not None and _below(self._results).store([record], timeout)[0]
            (ours,) = self._below.settle([settlement], timeout)
            found = self._below.fetch(queues, limit=1, wait=0.0, lease=lease, worker=worker)
            return applied, ours, found

        return self._call("exchange", exchange)


def _below(backend: Backend) -> Backend:
    return backend.below if isinstance(backend, FaultyBackend) else backend
