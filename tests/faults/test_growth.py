"""What goes on for ever: nothing in a process, and nothing on a server, may grow with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES
from upshot import App, clock
from upshot_conformance.harness import Harness, UnavailableError

from .conftest import Sized
from .growth import LIMIT, MEGABYTE, NOISE, Caller, judge, settled_slope
from .scoreboard import Score

PROGRAM: Final = Path(__file__).parent / "programs" / "growing.py"
ROUNDS: Final = 6  # that are measured: coroutines open connections in the first three or four
MANY_ROUNDS: Final = 10  # of a long run
WORTH_A_SLOPE: Final = 50_000  # calls; of fewer, the allocator's own steps make any slope
LONG: Final = (
    {
        "exchanges": 90_000,
        "failures": 10_000,
        "retries": 10_000,
        "coroutines": 10_000,
        "revocations": 10_000,
        "awaits": 10_000,
        "callbacks": 5_000,
        "singles": 5_000,
        "errors": 1_000,
        "reports": 100_000,
    },
    {"abandoned": 50_000, "queues": 10_000},
    {"timeouts": 20_000, "timeouts_of_many": 80_000, "empty_fetches": 500, "apps": 1_000},
)
"""What three processes do at the same time: they make 200 000 runs of tasks, retries included."""

FAILURES: Final = 100  # after which formatting one more leaves nothing
ALL: Final = (
    "singles",
    "exchanges",
    "failures",
    "errors",
    "retries",
    "coroutines",
    "reports",
    "revocations",
    "callbacks",
    "awaits",
    "abandoned",
    "timeouts",
    "timeouts_of_many",
    "empty_fetches",
    "queues",
    "apps",
)


@dataclass(frozen=True)
class Pair:
    """A broker, and a backend if that is another service.

    Attributes:
        broker, backend: names of services; "" for results on the broker's service.
        spared: kinds of work whose caller holds more afterwards, within a stated bound.
        without: kinds of work that are about the broker, and differ there for a stated reason.
    """

    broker: str
    backend: str = ""
    spared: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.broker}+{self.backend}" if self.backend else self.broker


# Where results are carried, the process that submitted keeps those that nobody reads until they
# expire, and of those that were forgotten before they came the latest 10 000: see `Mailbox`.
# RabbitMQ keeps a queue until somebody deletes it: its names are meant to be few.
IN_CI: Final = (Pair("redis"),)
IN_FULL: Final = (
    Pair("sqlite"),
    Pair("postgresql"),
    Pair("amqp", spared=("abandoned", "revocations"), without=("queues",)),
    Pair("amqp", "redis", without=("queues",)),
    Pair("sqlite", "mongo"),
    Pair("sqlite", "memcached"),
)
PAIRS: Final = [
    *(pytest.param(each, id=str(each)) for each in IN_CI),
    # In few calls, what comes and goes in a worker's AMQP client is more than a leak would be.
    *(
        pytest.param(
            each,
            id=str(each),
            marks=pytest.mark.full if each.broker == "amqp" else pytest.mark.wide,
        )
        for each in IN_FULL
    ),
]


@dataclass
class Held:
    """What a service holds and who is connected to it; "" and 0 where it cannot tell."""

    objects: set[str] = field(default_factory=set[str])
    connections: int = 0
    subscriptions: int = 0


class Services:
    """Looks into the services of one pair.

    Args:
        opened: a harness for each.
    """

    def __init__(self, opened: list[Harness]) -> None:
        self._harnesses = opened

    def held(self) -> Held:
        """Return what they hold now, together."""
        found = Held()
        for place, harness in enumerate(self._harnesses):
            found.objects |= {f"{place} {name}" for name in harness.raw_objects("")}
            try:
                found.connections += harness.connections()
                found.subscriptions += len(harness.subscriptions(""))
            except UnavailableError:
                continue
        return found


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each pair in turn."""
    chosen: Pair = request.param
    return chosen


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `jobs.py`: the tasks and their callers."""
    shutil.copy(PROGRAM, tmp_path / "jobs.py")
    monkeypatch.setenv("UPSHOT_NAMESPACE", f"test-{os.urandom(4).hex()}")
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")  # nothing runs twice on a busy machine
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", str(PATIENCE / 2))
    return tmp_path


@pytest.fixture
def services(
    pair: Pair, project: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    """An environment that points at the pair, and what looks into it."""
    by_name = {service.broker or service.name: service for service in SERVICES}
    with ExitStack() as stack:
        opened: list[Harness] = []
        for variable, name in (
            ("UPSHOT_BROKER_URL", pair.broker),
            ("UPSHOT_RESULT_BACKEND", pair.backend),
        ):
            if name:
                url = by_name[name].find(request, project)
                monkeypatch.setenv(variable, url)
                opened.append(stack.enter_context(closing(by_name[name].harness(url))))
        if pair.broker == "amqp" and not pair.backend:
            monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://")
        yield Services(opened)


def descriptors(pid: int) -> int:
    """Return how many another process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def compare(score: Score, services: Services, before: Held) -> None:
    """Count what services hold now, and did not hold before."""

    def more() -> list[str]:
        now = services.held()
        found = sorted(now.objects - before.objects)
        counts = [
            f"{what}: {was} → {held}"
            for what, was, held in (
                ("connections", before.connections, now.connections),
                ("subscriptions", before.subscriptions, now.subscriptions),
            )
            if held > was + NOISE
        ]
        return [*found[:3], *([f"{len(found)} objects"] if found else []), *counts]

    deadline = clock.Deadline(PATIENCE)
    while (left := more()) and not deadline.expired:
        with App() as app:
            app.results.prune()  # what has expired, where the service itself does not remove it
        clock.sleep(0.1)
    for each in left:
        score.surprise(f"left on the service: {each}")


@pytest.mark.experiment(10)
@pytest.mark.timeout(600)
def test_the_same_again_and_again_leaves_nothing(
    pair: Pair,
    services: Services,
    project: Path,
    start_worker: Callable[..., Any],
    score: Score,
    sized: Sized,
) -> None:
    kinds = [kind for kind in ALL if kind not in pair.without]
    often = sized(240, 120)
    orders = dict.fromkeys(kinds, often) | {"apps": often // 10}
    worker = start_worker("-c", "1", "-l", "error")
    # What is made once: connections, tables, and what `traceback` keeps of some hundred failures.
    with Caller(project, 1, dict.fromkeys(kinds, 1) | {"failures": FAILURES}) as first:
        first.series(2 * PATIENCE)
    before, opened = services.held(), descriptors(worker.process.pid)

    with Caller(project, ROUNDS, orders) as caller:
        series = caller.series(5 * PATIENCE)

    score.submitted = score.executed = score.recorded = caller.calls
    judge(score, series, spared=pair.spared)
    compare(score, services, before)
    if descriptors(worker.process.pid) > opened + NOISE:
        score.surprise("the worker's supervisor holds more descriptors")
    assert worker.stop(PATIENCE) == 0, worker.output()
    most = max(sum(each.steps("rss")) for each in series)
    score.remark(f"{len(orders)} kinds; RSS of one at most +{most / MEGABYTE:.2f} MB")
    score.judge()


@pytest.mark.experiment(10)
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pair", [Pair("redis")], ids=str)
def test_two_hundred_thousand_tasks_through_one_worker(
    services: Services, project: Path, start_worker: Callable[..., Any], score: Score
) -> None:
    worker = start_worker("-c", "1", "-l", "error")
    everything = {kind: 1 for orders in LONG for kind in orders}
    with Caller(project, 1, everything | {"failures": FAILURES}) as first:
        first.series(2 * PATIENCE)
    before = services.held()

    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(project, MANY_ROUNDS, each)) for each in LONG]
        series = [each for caller in callers for each in caller.series(13 * PATIENCE)]

    score.submitted = score.recorded = sum(caller.calls for caller in callers)
    measures = [each for one in series if one.who == "worker" for each in one.measures]
    judge(score, [each for each in series if each.who == "caller"])
    compare(score, services, before)
    assert worker.stop(PATIENCE) == 0, worker.output()
    # One process measured by several callers: in the order of the tasks that it had run.
    score.executed = max(each["runs"] for each in measures)
    grown = 100_000 * settled_slope([(each["runs"], each["rss"]) for each in measures])
    score.remark(f"worker {grown / MEGABYTE:+.2f} MB in 100 000 tasks")
    if grown > LIMIT:
        score.surprise(f"the worker's RSS grows by {grown / MEGABYTE:.2f} MB in 100 000 tasks")
    for each in series:
        if each.who == "caller" and each.each * MANY_ROUNDS >= WORTH_A_SLOPE:
            score.remark(f"{each.kind} {each.rss_slope() / MEGABYTE:+.2f} MB")
    score.judge()
