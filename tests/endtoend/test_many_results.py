"""Ten thousand results awaited at once: a few connections, one thread, and nothing left behind."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from upshot import App, registry
from upshot.client import ResultClient
from upshot.errors import ServiceClosedError
from upshot.request import Request
from upshot.result_set import ResultSet
from upshot.url import Url
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.resources import open_descriptors

from .patience import PATIENCE, comes_to
from .services import Service
from .storing import Store, storing

FEW = 100
MANY = 10_000
BATCH = 1000
WAITERS = 20
EACH = 50  # ids that each waiter waits for; together they fill one batch
MOST = 12  # connections of both processes: to every node of a cluster, or to watch over a server
NOISE = 2  # connections of a pool, and drivers' own threads, that may come a little later


@dataclass(frozen=True)
class Held:
    """The most that was held at any look, beyond what there was before."""

    connections: int
    descriptors: int
    threads: int


class Meter:
    """Counts what this process holds, and what the service sees of it."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._before = self._count()
        self._most = Held(0, 0, 0)

    def look(self) -> None:
        """Count now."""
        now, before, most = self._count(), self._before, self._most
        self._most = Held(
            max(most.connections, now.connections - before.connections),
            max(most.descriptors, now.descriptors - before.descriptors),
            max(most.threads, now.threads - before.threads),
        )

    def take(self) -> Held:
        """Return the most since the last call."""
        most, self._most = self._most, Held(0, 0, 0)
        return most

    def _count(self) -> Held:
        try:
            connections = self._harness.connections()
        except UnavailableError:
            connections = 0
        return Held(connections, len(open_descriptors()), threading.active_count())


def wait_for(count: int, app: App, store: Store, pool: ThreadPoolExecutor, meter: Meter) -> Held:
    """Send tasks, wait for all in one thread, store their results meanwhile, and forget them."""
    handles = ResultSet[int](app.send([Request(name="jobs.n", args=(n,)) for n in range(count)]))
    values = {handle.id: n for n, handle in enumerate(handles)}
    awaited = pool.submit(handles.get, timeout=3 * PATIENCE)
    comes_to(lambda: app.results.stats()["waiters"], count)
    assert app.results.stats()["threads"] == 1
    ids = list(values)
    for start in range(0, count, BATCH):
        meter.look()
        assert all(store({task_id: values[task_id] for task_id in ids[start : start + BATCH]}))
    assert awaited.result(timeout=3 * PATIENCE) == list(range(count))
    meter.look()
    handles.forget()
    return meter.take()


@pytest.mark.timeout(400)
def test_ten_thousand_results_come_over_a_few_connections(
    service: Service, backend_url: str, harness: Harness, open_app: Callable[..., App]
) -> None:
    app = open_app(backend_url)
    with ThreadPoolExecutor(1) as pool, storing(app) as store:
        pool.submit(int).result()  # its thread is there before anything is counted
        meter = Meter(harness)

        few = wait_for(FEW, app, store, pool, meter)
        found = harness.raw_objects("")
        many = wait_for(MANY, app, store, pool, meter)

        print(f"{service.name}: {FEW} ids: {few}; {MANY} ids: {many}")
        assert many.connections <= min(MOST, few.connections + NOISE)
        assert many.descriptors <= few.descriptors + NOISE
        assert many.threads <= few.threads + NOISE
        held = app.results.stats()
        assert (held["keys"], held["waiters"]) == (0, 0)
        assert held["listeners"] <= 1
        app.close()
    comes_to(lambda: harness.raw_objects("") - found, set[str]())


@pytest.mark.timeout(200)
def test_one_look_reads_all_that_is_awaited_whoever_waits_for_it(backend_url: str) -> None:
    looks: list[int] = []
    url = Url.parse(backend_url)
    base = registry.backend_class(url)

    def load(self: Any, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        if threading.current_thread().name.startswith("upshot-hub"):
            looks.append(len(keys))
        return base.load(self, keys, timeout)

    watched = type(base.__name__, (base,), {"load": load})
    client = ResultClient(lambda: watched(url), url=url, namespace=f"test-{uuid.uuid4().hex[:8]}")

    def wait(number: int) -> None:
        ids = [f"{number}/{n}" for n in range(EACH)]
        with contextlib.suppress(ServiceClosedError):
            list(client.wait_many(ids, timeout=3 * PATIENCE))

    with ThreadPoolExecutor(WAITERS) as pool, client:
        waits: list[Future[None]] = [pool.submit(wait, number) for number in range(WAITERS)]
        comes_to(lambda: client.stats()["waiters"], WAITERS * EACH)
        comes_to(lambda: WAITERS * EACH in looks, True)
        client.close()
        assert [wait.result(timeout=PATIENCE) for wait in waits] == [None] * WAITERS
