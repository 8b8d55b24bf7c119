"""What a task queue takes before and beside its work: imports, memory, and how that grows.

Each is measured alone, for memory is shared with whoever runs at the same time. Resident memory
counts a page in full for every process that has it, and is what tools show; the proportional kind
divides it among them, so that what a worker's processes share is counted once.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.applications import APPLICATIONS
from benchmarks.figures import Figure
from benchmarks.player import ROOT, in_turn, python_of
from benchmarks.workers import Place, Side, all_at_work, at_work, places, taking_part

__all__ = ["processor_time", "run"]

_FEW: Final = ("upshot", "celery")  # of whom growth is measured, and quickly everything
_IMPORTS: Final = (7, 3)  # rounds, in full and quickly
_ROUNDS: Final = (2, 1)  # of starting a worker
_GROWTH: Final = 20  # rounds
_WARM: Final = 5  # rounds before growth is measured: until 4 000 tasks, caches and pools fill
_AT_ONCE: Final = 1000  # tasks of a round: all are submitted before any result is got

_APPS: Final = {
    "upshot": "from upshot import App; App(broker='redis://', backend='redis://')",
    "celery": "from celery import Celery; Celery(broker='redis://', backend='redis://')",
    "dramatiq": "import dramatiq, dramatiq.brokers.redis, dramatiq.results.backends.redis",
    "huey": "from huey import RedisHuey; RedisHuey()",
    "rq": "from redis import Redis; from rq import Queue; Queue(connection=Redis())",
    "taskiq": "from taskiq_redis import ListQueueBroker as L; L('redis://')",
    "arq": "import arq.connections",
}
"""What a program does before its first task."""


@dataclass(frozen=True)
class _Queue:
    name: str


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure imports, memory and growth."""
    names = [each for each in taking_part(service, contenders) if not quick or each in _FEW]
    queues = [_Queue(name) for name in names]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        where = places(service, url, Path(folder), names)
        figures = _imports(service, queues, quick)
        figures += _memory(service, queues, where, Path(folder), quick)
        if not quick:
            growing = [each for each in queues if each.name in _FEW]
            figures.append(_growth(service, growing, where, Path(folder)))
    return [figure for figure in figures if figure.samples]


# -- imports --------------------------------------------------------------------------------------


def _imports(service: str, queues: Sequence[_Queue], quick: bool) -> list[Figure]:
    plain = Figure("footprint", service, "import, processor", "ms")
    app = Figure("footprint", service, "import and an app, processor", "ms")

    def measured(figure: Figure, program: Callable[[str], str]) -> None:
        def act(queue: _Queue) -> None:
            figure.add(queue.name, processor_time(queue.name, program(queue.name)) * 1e3)

        in_turn(queues, 1, lambda queue: processor_time(queue.name, program(queue.name)))
        in_turn(queues, _IMPORTS[quick], act)

    # Celery's modules are lazy: of its import alone almost nothing comes.
    measured(plain, lambda name: f"import {name}")
    measured(app, _APPS.__getitem__)
    return [plain, app]


def processor_time(name: str, program: str) -> float:
    """Run a program of one line in a fresh process; return the seconds of processor it took.

    What the interpreter takes to start is not counted.

    Args:
        name: the task queue in whose environment it runs.
        program: Python.

    Raises:
        RuntimeError: it failed.
    """
    environment, _ = APPLICATIONS[name]
    timed = (
        f"import time; began = time.process_time(); {program}; print(time.process_time() - began)"
    )
    done = subprocess.run(
        [python_of(environment), "-W", "ignore", "-c", timed],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {program} ended with {done.returncode}")
    return float(done.stdout)


# -- memory ---------------------------------------------------------------------------------------


def _memory(
    service: str, queues: Sequence[_Queue], where: dict[str, Place], folder: Path, quick: bool
) -> list[Figure]:
    imported = Figure("footprint", service, "client before its first task: resident", "MB")
    client = Figure("footprint", service, "client after its first result: resident", "MB")
    resident = Figure("footprint", service, "idle worker, all processes: resident", "MB")
    proportional = Figure("footprint", service, "idle worker, all processes: proportional", "MB")

    def act(queue: _Queue) -> None:
        with at_work(queue.name, where[queue.name], folder) as side:
            imported.add(queue.name, side.first["rss before"])
            client.add(queue.name, side.first["rss"])
            resident.add(queue.name, side.resident())
            proportional.add(queue.name, side.proportional())

    in_turn(queues, _ROUNDS[quick], act)
    return [imported, client, resident, proportional]


def _growth(
    service: str, queues: Sequence[_Queue], where: dict[str, Place], folder: Path
) -> Figure:
    figure = Figure("footprint", service, "worker, after 20 000 more tasks: growth", "MB")
    with contextlib.ExitStack() as stack:
        growing = {each.name: where[each.name] for each in queues}
        sides = all_at_work(stack, growing, folder)
        before: dict[str, float] = {}

        def work(side: Side) -> None:
            side.client.ask("throughput", count=_AT_ONCE)

        def look(side: Side) -> None:
            before[side.name] = side.resident()

        in_turn(sides, _WARM, work)
        in_turn(sides, 1, look)
        able = [side for side in sides if side.name in before]
        in_turn(able, _GROWTH, work)
        for side in able:
            figure.add(side.name, side.resident() - before[side.name])
    return figure
