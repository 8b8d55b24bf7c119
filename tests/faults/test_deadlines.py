"""Every public call is back in time, whatever the service does or does not do.

Judged are 1.5 seconds for calls that have one, plus what the machine was late itself: the same
calls are made on the healthy service first, as many at once, and a thread measures meanwhile how
late it is woken. The table shows how many were back within the figure itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import App
from upshot.errors import ServiceError
from upshot_conformance.proxies import Proxies

from .conftest import FULL
from .public_calls import (
    BOUND,
    BROKER,
    RESULTS,
    SENDING,
    SHORT,
    TIMEOUT,
    Act,
    Answer,
    Caller,
    Running,
    all_at_once,
    begin,
    lateness,
)
from .scoreboard import Score

_SPARED: Final = ("mongo-standalone", "redis-sentinel")  # in CI: others go the same ways
SERVERS = [
    pytest.param(each, id=each.name, marks=[pytest.mark.wide] if each.name in _SPARED else [])
    for each in SERVICES
    if each.server
]
CALM: Final = 5.0  # seconds for calls that prepare, on a busy machine
SLACK: Final = 0.0 if FULL else 3.0  # seconds: other tests run beside these; what hangs is later
LATE: Final = 4  # how many times a call may be as late as a thread was at worst
FAULTS: Final[dict[str, Callable[[Proxies], None]]] = {
    "held": Proxies.hold,
    "a byte a second": partial(Proxies.trickle, seconds=1.0),
    "5 bytes a second": partial(Proxies.trickle, seconds=0.2),
    "no answers": Proxies.drop_replies,
    "refused": Proxies.cut,
}
"""What a proxy can do. Five bytes a second are worse than one: no single read takes a second."""


class Side:
    """Callers on one side of a fault: an app that is connected, and new ones that are not.

    Args:
        broker, backend: the URLs.
        has_broker: the service is a broker too.
    """

    def __init__(self, broker: str, backend: str, *, has_broker: bool) -> None:
        self._urls = {"broker": broker, "backend": backend}
        self._namespace = f"test-{os.urandom(4).hex()}"
        self.calls: dict[str, Act] = RESULTS | SENDING | (BROKER if has_broker else {})
        self._on_new_ones = {name: act for name, act in self.calls.items() if FULL or name in SHORT}
        self._fresh: list[App] = []
        self._leaving = self._connected()
        self.warm = self._opened(TIMEOUT)
        ids = tuple(self.warm.send_task("jobs.add", [1, 2]).id for _ in range(4))
        self._caller = Caller(self.warm, ids)

    def _opened(self, seconds: float) -> App:
        return App(
            **self._urls,
            namespace=self._namespace,
            operation_timeout=seconds,
            no_worker_warning=None,
        )

    def _connected(self) -> App:
        app = self._opened(CALM)
        app.send_task("jobs.add", [1, 2])
        return app

    def _freshly(self) -> Caller:
        self._fresh.append(self._opened(TIMEOUT))
        return Caller(self._fresh[-1], self._caller.ids)

    def call_all(self) -> list[Running]:
        """Begin every call, on the connected app and each on a new one."""
        return [
            *all_at_once(lambda: self._caller, self.calls, "connected"),
            *all_at_once(self._freshly, self._on_new_ones, "new"),
        ]

    def close_new(self) -> list[Running]:
        """Begin to close the new apps."""
        leaving, self._fresh = self._fresh, []
        return [begin("close of a new one", app.close) for app in leaving]

    def close_some(self) -> list[Running]:
        """Begin to close the new apps, and one that is connected."""
        return [*self.close_new(), begin("close of a connected one", self._leaving.close)]

    def works(self) -> bool:
        """Tell whether the connected app's calls are answered."""
        try:
            self.warm.results.load("anybody")
            self.warm.send_task("jobs.add", [1, 2])
        except ServiceError:
            return False
        return True

    def close(self) -> list[Running]:
        """Begin to close all."""
        return [*self.close_new(), begin("close of a used one", self.warm.close)]


def side_of(service: Service, url: str) -> Side:
    """Return callers of `service` at `url`; what is no broker gets one in memory."""
    if service.name == "rpc":
        return Side(url, "rpc://", has_broker=True)
    broker = url if service.broker else f"memory://{os.urandom(4).hex()}"
    return Side(broker, url, has_broker=bool(service.broker))


def answers(running: Sequence[Running]) -> list[Answer]:
    return [each.answer() for each in running]


def slowest(found: Sequence[Answer]) -> float:
    """Return by how much the latest call was late, on a service that answers at once."""
    return max(each.seconds - each.nominal for each in found)


def count(score: Score, what: str, found: Sequence[Answer], allowance: float) -> None:
    """Add calls to a score; `allowance` is by how many seconds more they may be late."""
    score.submitted += len(found)
    for each in found:
        in_time = each.seconds <= BOUND + SLACK + allowance
        score.executed += in_time
        score.recorded += in_time and each.is_clear
        score.hung += not in_time
        if not in_time:
            score.remark(f"{what}: {each.name} took {each.seconds:.2f} s")
        if not each.is_clear:
            score.surprise(f"{what}: {each.name} raised {each.error!r}")
    strictly = sum(each.seconds <= BOUND for each in found)
    score.remark(f"{what}: {strictly} of {len(found)} within {BOUND} s")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hear nothing of what hundreds of failing calls log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def lines(service: Service, url: str, names: Sequence[str]) -> Generator[dict[str, Proxies]]:
    """Put one set of proxies for each fault before the service."""
    with ExitStack() as stack:
        harness = stack.enter_context(closing(service.harness(url)))
        yield {name: stack.enter_context(Proxies(url, harness)) for name in names}


@pytest.mark.timeout(300)
@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", SERVERS)
def test_calls_are_back_in_time(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path, score: Score
) -> None:
    names = list(FAULTS) if FULL else ["5 bytes a second"]
    with lines(service, service.find(request, tmp_path), names) as ways:
        for name, line in ways.items():
            side = side_of(service, line.text)
            with lateness() as late:
                healthy = answers(side.call_all())
                answers(side.close_new())
                FAULTS[name](line)
                found = answers(side.call_all())
                found += answers(side.close_some())
                count(score, name, found, slowest(healthy) + LATE * late())
            line.heal()
            comes_to(side.works, True)
            answers(side.close())
    score.judge()


@pytest.mark.wide
@pytest.mark.timeout(300)
@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", SERVERS)
def test_calls_to_a_frozen_service_are_back_in_time(service: Service, score: Score) -> None:
    assert service.server is not None, "only those with one are parameters"
    with service.server() as server:
        side = side_of(service, server.url)
        with lateness() as late:
            healthy = answers(side.call_all())
            answers(side.close_new())
            freezable: Any = server
            freezable.pause()
            try:
                found = answers(side.call_all())
                found += answers(side.close_some())
                found += answers(side.close())
            finally:
                freezable.resume()
            count(score, "frozen", found, slowest(healthy) + LATE * late())
    score.judge()
