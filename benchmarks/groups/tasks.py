"""From `delay()` to `get()`: whole tasks through one worker for two tasks at once."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.commands import commands
from benchmarks.figures import Figure
from benchmarks.player import in_turn
from benchmarks.workers import Side, all_at_work, places, taking_part

__all__ = ["run"]

_ROUNDS: Final = (5, 1)  # in full, and quickly
_LONGEST: Final = (20.0, 1.0)  # seconds for all rounds of one figure
_TASKS: Final = (500, 200)
_SLOW: Final = {"rq": 20}  # it forks for each task
_COUNTED: Final = 100  # tasks whose commands are counted
_ROUND_TRIPS: Final = (50, 10)
_IDLE: Final = (6.0, 2.0)  # seconds for which idle workers are watched


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure every task queue in turn."""
    unit = "µs"
    first = Figure("tasks", service, "worker start to first result", "s")
    rate = Figure("tasks", service, "tasks, submitted and collected", "tasks/s", "higher")
    submit = Figure("tasks", service, "submit", unit)
    trip = Figure("tasks", service, "one round trip, median", "ms")
    worker = Figure("tasks", service, "processor of the worker, per task", unit)
    client = Figure("tasks", service, "processor of the client, per task", unit)

    def flood(side: Side) -> None:
        count = min(_TASKS[quick], _SLOW.get(side.name, _TASKS[quick]))
        before = side.cpu()
        found = side.client.ask("throughput", count=count)
        rate.add(side.name, 1 / found["all"])
        submit.add(side.name, found["submit"] * 1e6)
        client.add(side.name, found["cpu"] * 1e6)
        worker.add(side.name, (side.cpu() - before) / count * 1e6)

    def one_by_one(side: Side) -> None:
        trips = side.client.ask("round_trips", count=_ROUND_TRIPS[quick])
        trip.add(side.name, statistics.median(trips) * 1e3)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        names = taking_part(service, contenders)
        if quick and service == "sqlite":  # Celery keeps its messages there for demonstrations
            names = [each for each in names if each != "celery"]
        where = places(service, url, folder, names)
        sides = all_at_work(stack, where, folder)
        for side in sides:
            first.add(side.name, side.start)
        in_turn(sides, _ROUNDS[quick], one_by_one, _LONGEST[quick])
        in_turn(sides, _ROUNDS[quick], flood, _LONGEST[quick])
        figures = [first, rate, submit, trip, worker, client]
        figures += _idle(service, url, sides, list(where), _IDLE[quick])
        if service == "redis":
            figures.append(_counted(service, url, sides, list(where)))
    return [figure for figure in figures if figure.samples]


def _idle(
    service: str, url: str, sides: Sequence[Side], names: Sequence[str], seconds: float
) -> list[Figure]:
    """Watch all workers while nothing is to be done: one cannot disturb another then."""
    cpu = Figure("tasks", service, "processor of an idle worker", "% of one")
    sent = Figure("tasks", service, "commands of an idle worker", "1/s")
    before = {side.name: side.cpu() for side in sides}
    if service == "redis":
        with commands(url) as counted:
            time.sleep(seconds)
            found = counted()
        for side in sides:
            sent.add(side.name, found[names.index(side.name) + 1] / seconds)
    else:
        time.sleep(seconds)
    for side in sides:
        cpu.add(side.name, (side.cpu() - before[side.name]) / seconds * 100)
    return [cpu, sent]


def _counted(service: str, url: str, sides: Sequence[Side], names: Sequence[str]) -> Figure:
    """Count the commands of whole tasks; apart from what is timed, for it slows down the server."""
    figure = Figure("tasks", service, "commands of a task, client and worker", "")

    def act(side: Side) -> None:
        count = min(_COUNTED, _SLOW.get(side.name, _COUNTED))
        with commands(url) as counted:
            side.client.ask("throughput", count=count)
            figure.add(side.name, counted()[names.index(side.name) + 1] / count)

    in_turn(sides, 1, act)
    return figure
