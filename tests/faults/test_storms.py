"""Workers that are killed at random moments, again and again."""

from __future__ import annotations

import bisect
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES
from upshot import App, AsyncResult, clock
from upshot.errors import ResultTimeoutError
from upshot.request import Request

from .conftest import FULL, Sized
from .fleet import Fleet
from .ledger import Entry, Ledger
from .scoreboard import Score

StartWorker = Callable[..., Any]

LEASE: Final = 5.0 if FULL else 2.0
RECOVERY: Final = LEASE + 5.0  # seconds: what a killed task may take to run again
BROKERS: Final = {
    "redis": "redis",
    "amqp": "redis",  # where its results go
    "sqlite": "sqlite",
    "postgresql": "postgresql",
}
_BATCH: Final = 1000
_STORED = re.compile(r"task (\S+) \S+ SUCCESS in")
_AGAIN = re.compile(r"task (\S+) \S+ runs again")


def address(service: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of a service by the name it has as a broker."""
    names = {each.broker or each.name: each for each in SERVICES}
    return names[service].find(request, folder)


@pytest.fixture(params=BROKERS)
def service_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The broker; results go to the same service if it keeps them."""
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", address(BROKERS[request.param], request, tmp_path))
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", str(LEASE))
    # A storm may hit one task again and again: here that is no fault of the task.
    monkeypatch.setenv("UPSHOT_TASK_MAX_DELIVERIES", "1000")
    return address(request.param, request, tmp_path)


def send(app: App, count: int, seconds: Callable[[], float]) -> list[AsyncResult[list[float]]]:
    """Send tasks that return their number and what tells a run from others."""
    requests = [Request(name="jobs.run", args=[n, seconds()]) for n in range(count)]
    return [
        handle
        for first in range(0, count, _BATCH)
        for handle in app.send(requests[first : first + _BATCH])
    ]


def is_idle(app: App) -> bool:
    """Tell whether nothing waits; where the service can tell, that nothing is at a worker too."""
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    return not (status["default"].ready or status["default"].leased)


def has_entries(ledger: Ledger, goal: int) -> bool:
    """Tell whether so many runs have begun."""
    return ledger.count() >= goal


def oversleep(seconds: float) -> float:
    """Sleep, and return by how much that took longer: so late may this machine be."""
    began = clock.monotonic()
    clock.sleep(seconds)
    return clock.monotonic() - began - seconds


def ended(
    handles: list[AsyncResult[list[float]]], score: Score, timeout: float
) -> dict[str, object]:
    """Wait for all tasks; return the outcomes by id and count those that have none."""
    values: dict[str, object] = {}
    client = handles[0].origin.client
    try:
        for task_id, _ in client.wait_many([each.id for each in handles], timeout=timeout):
            values[task_id] = None
    except ResultTimeoutError:
        score.lost = len(handles) - len(values)
    return {each.id: each.get(0, propagate=False) for each in handles if each.id in values}


def recoveries(entries: list[Entry], killed: dict[int, float]) -> list[float]:
    """Return how long after the death of its process each task was begun again.

    After the death of all workers, the time begins when the first new one has begun something.
    """
    moments = sorted(entry.moment for entry in entries)
    last: dict[str, Entry] = {}
    found: list[float] = []
    for entry in entries:
        before = last.get(entry.task_id)
        if before is not None and before.pid in killed:
            since = bisect.bisect_left(moments, killed[before.pid])
            found.append(entry.moment - moments[since])
        last[entry.task_id] = entry
    return sorted(found)


def check_runs(score: Score, ledger: Ledger, values: dict[str, object], log: str) -> None:
    """Count runs; each outcome is one run's, each repetition is logged, each end is logged once."""
    entries = ledger.entries()
    begun = {(entry.task_id, entry.pid, entry.moment) for entry in entries}
    score.executed, score.duplicated = len(entries), ledger.repeated()
    score.recorded = len(values)
    for number, (task_id, value) in enumerate(values.items()):
        match value:
            case [int(), int(pid), float(moment)] if value[0] == number:
                is_of_a_run = (task_id, pid, moment) in begun
            case _:
                is_of_a_run = False
        if not is_of_a_run:
            score.surprise(f"{task_id} has the outcome of no run: {value!r}")
    stored, again = Counter(_STORED.findall(log)), Counter(_AGAIN.findall(log))
    for task_id, count in ledger.runs().items():
        if count > 1 + again[task_id]:
            score.surprise(f"{task_id} ran {count} times, and {again[task_id]} lines say so")
        if stored[task_id] > 1:
            score.surprise(f"{task_id} was stored {stored[task_id]} times")


@pytest.mark.experiment(1)
@pytest.mark.timeout(400)
def test_kill_storm(
    app: App,
    ledger: Ledger,
    score: Score,
    start_worker: StartWorker,
    sized: Sized,
    dice: random.Random,
) -> None:
    count, kills = sized(10_000, 300), sized(200, 6)
    called = Counter[str]()
    handles = send(app, count, lambda: dice.choice((0.0, 0.001, 0.01, 0.03)))
    for handle in handles:
        handle.add_done_callback(lambda handle: called.update([handle.id]))
    fleet = Fleet(lambda: start_worker("-c", "3"), sized(3, 2), dice)

    began, late = clock.monotonic(), 0.0
    while fleet.strikes < kills:
        goal = count * (fleet.strikes + 1) // (kills + 2)
        comes_to(partial(has_entries, ledger, goal), True)
        late = max(late, oversleep(dice.uniform(0.0, 0.03)))
        fleet.strike()
        if fleet.strikes == kills // 2:
            fleet.strike_all()
    values = ended(handles, score, PATIENCE)
    seconds = clock.monotonic() - began
    comes_to(lambda: is_idle(app), True)
    codes = fleet.stop(PATIENCE)

    score.submitted = count
    check_runs(score, ledger, values, fleet.output())
    again = {handle.id: handle.get(0, propagate=False) for handle in handles}
    if again != values:
        score.surprise("outcomes have changed after they were read")
    if any(called[handle.id] != 1 for handle in handles):
        score.surprise(f"callbacks: {Counter(called.values())}")
    if any(codes):
        score.surprise(f"workers ended with {codes}")
    found = recoveries(ledger.entries(), fleet.killed)
    score.remark(f"{fleet.strikes} kills in {seconds:.0f} s")
    if found:
        p50, p99 = statistics.median(found), found[int(0.99 * len(found))]
        score.remark(f"back after {p50:.1f} s, p99 {p99:.1f} s ({len(found)})")
        if FULL and p99 > RECOVERY + 4 * late:
            score.surprise(f"p99 of recovery is {p99:.1f} s")
    score.judge()
