"""A worker's process that is killed at each point of a task's life, on every pair of services.

All pairs of one broker are tried at the same time: what they do most is wait for leases.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance.running import register
from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import AsyncResult
from upshot.errors import ResultTimeoutError
from upshot.registry import BACKENDS

from .bench import Bench
from .conftest import WIDE
from .programs.kill_points import PREFIX, entry_point
from .scoreboard import Score

PROGRAM: Final = Path(__file__).parent / "programs" / "kill_points.py"
BROKERS: Final = [each for each in SERVICES if each.broker]
STORES: Final = [each for each in SERVICES if each.name != "memory"]

POINTS: Final = {
    "received": False,  # leased, and not recorded as started
    "started": False,  # recorded as started, and not yet begun
    "running": True,  # in the body
    "returned": True,  # after the body, and its outcome is nowhere yet
    "stored": True,  # its outcome is stored, and the message not acknowledged
}
"""Where a process is killed, and whether the body has begun there."""

SETTINGS: Final = {"worker_lease": 2.0, "task_max_deliveries": 100}


@dataclass
class Pair:
    """One broker with one result backend, a worker, and a task for each point."""

    bench: Bench
    store: Service
    handles: dict[str, AsyncResult[Any]] = field(default_factory=dict[str, AsyncResult[Any]])

    def begin(self) -> None:
        """Send the tasks and start the worker that will die of them."""
        for point in POINTS:
            gate = self.bench.folder / f"died-{point}.task"
            self.handles[point] = self.bench.app.send_task(
                "jobs.behind",
                [str(gate) if point == "running" else "/", point],
                task_id=f"{point}.task",
            )
        self.bench.start_worker("-c", str(len(POINTS)))

    def end(self, score: Score) -> None:
        """Wait for all tasks and count."""
        for point, handle in self.handles.items():
            try:
                value = handle.get(timeout=PATIENCE)
            except ResultTimeoutError:
                score.lost += 1
                continue
            score.recorded += 1
            if value != point:
                score.surprise(f"{self}: {point} has {value!r}")
        if score.lost:
            return
        if self.bench.broker.startswith("amqp"):  # which does not tell of leased messages
            comes_to(lambda: len(self.bench.logged("not run: it has ended")) > 0, self.is_shared)
        self.bench.comes_to_rest()
        for point, has_begun in POINTS.items():
            self._count(point, has_begun, score)

    @property
    def is_shared(self) -> bool:
        """Whether a worker sees the records of others."""
        return self.bench.app.results.capabilities.shared

    def _count(self, point: str, has_begun: bool, score: Score) -> None:
        died = self.bench.folder / f"died-{point}.task"
        if not died.exists():
            score.surprise(f"{self}: no process was killed at {point!r}")
            return
        moment = float(died.read_text())
        runs = [
            each.moment for each in self.bench.ledger.entries() if each.task_id == died.name[5:]
        ]
        before = sum(run <= moment for run in runs)
        score.executed += len(runs)
        score.duplicated += len(runs) - 1
        if (before > 0) != has_begun:
            score.surprise(f"{self}: {before} runs when it was killed at {point!r}")
        if point == "stored" and self.is_shared and len(runs) > before:
            score.surprise(f"{self}: run {len(runs) - before} times after its outcome was stored")

    def __str__(self) -> str:
        return f"results in {self.store.name}"


def chosen(broker: Service) -> list[Service]:
    """Return all backends; in the slice a part of them, each with one broker."""
    return STORES if WIDE else STORES[BROKERS.index(broker) :: len(BROKERS)]


@pytest.mark.experiment(2)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", BROKERS, ids=[each.broker for each in BROKERS])
def test_kill_points(
    request: pytest.FixtureRequest, tmp_path: Path, score: Score, broker: Service
) -> None:
    with ExitStack() as stack:
        pairs: list[Pair] = []
        for store in chosen(broker):
            folder = tmp_path / store.name
            folder.mkdir()
            url = store.find(request, folder)
            bench = Bench(folder, broker.find(request, folder), url, SETTINGS, f"{PREFIX}{url}")
            shutil.copy(PROGRAM, folder)
            entries = entry_point(url.partition("://")[0])
            register(folder, BACKENDS, entries, name=f"deadly-{os.urandom(4).hex()}")
            pairs.append(Pair(stack.enter_context(bench), store))
        for pair in pairs:
            pair.begin()
        for pair in pairs:
            pair.end(score)
        score.submitted = len(pairs) * len(POINTS)
        score.remark(f"{len(pairs)} backends")
        score.judge()
