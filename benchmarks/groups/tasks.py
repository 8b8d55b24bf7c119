"""From `delay()` to `get()`: whole tasks through one worker for two tasks at once."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.applications import APPLICATIONS
from benchmarks.figures import Figure
from benchmarks.player import ROOT, Player, in_turn, python_of

__all__ = ["run"]

_ROUNDS: Final = (5, 2)  # in full, and quickly
_TASKS: Final = 500
_ROUND_TRIPS: Final = 50
_FIRST: Final = 60.0  # seconds for a worker to start
_IDLE: Final = 5.0  # seconds for which an idle worker's processor time is counted
_TICK: Final = os.sysconf("SC_CLK_TCK")


class _Side:
    """A task queue at work: its worker, and a client."""

    def __init__(self, name: str, client: Player, worker: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.client = client
        self.worker = worker

    def cpu(self) -> float:
        """Return the processor time that the worker's processes have used, in seconds."""
        return sum(map(_cpu, self._processes()))

    def memory(self) -> float:
        """Return the resident memory of the worker's processes, in MB."""
        return sum(map(_resident, self._processes()))

    def _processes(self) -> list[int]:
        group = os.getpgid(self.worker.pid)
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == group:
                    found.append(int(entry.name))
        return found


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK  # with what its ended children used


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def _at_work(
    name: str, number: int, service: str, url: str, folder: Path, first: Figure
) -> Generator[_Side]:
    environment, _ = APPLICATIONS[name]
    broker, results = _places(name, number, service, url, folder)
    variables = {"BENCH_BROKER": broker, "BENCH_RESULTS": results, "PYTHONPATH": str(ROOT)}
    arguments = _worker(name, environment, variables)
    with Player(name, environment, "benchmarks.client", name, variables=variables) as client:
        log = (folder / f"{name}.log").open("wb")
        began = time.perf_counter()
        worker = subprocess.Popen(
            [python_of(environment), "-W", "ignore", *arguments],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            client.ask("first")
            first.add(name, time.perf_counter() - began)
            yield _Side(name, client, worker)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            log.close()


def _worker(name: str, environment: str, variables: dict[str, str]) -> list[str]:
    """Ask the application, in its own environment, how its worker is started."""
    program = f"from benchmarks.applications import with_{name} as a; print('\\n'.join(a.WORKER))"
    done = subprocess.run(
        [python_of(environment), "-W", "ignore", "-c", program],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:-1]


def _places(name: str, number: int, service: str, url: str, folder: Path) -> tuple[str, str]:
    """Return URLs of a broker and a result store that only this application uses."""
    if service == "redis":
        place = url.rsplit("/", 1)[0] + f"/{number}"
        return place, place
    if service == "sqlite":
        place = f"sqlite:///{folder}/{name}.db"
        return place, place
    return "amqp" + url[url.index("://") :], "rpc://"


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure every task queue in turn."""
    unit = "µs"
    first = Figure("tasks", service, "worker start to first result", "s")
    rate = Figure("tasks", service, "tasks, submitted and collected", "tasks/s", "higher")
    submit = Figure("tasks", service, "submit", unit)
    trip = Figure("tasks", service, "one round trip, median", "ms")
    worker = Figure("tasks", service, "processor of the worker, per task", unit)
    client = Figure("tasks", service, "processor of the client, per task", unit)
    idle = Figure("tasks", service, "processor of an idle worker", "% of one")
    memory = Figure("tasks", service, "memory of an idle worker", "MB")
    names = [each for each in contenders if service in APPLICATIONS.get(each, ("", ()))[1]]

    def flood(side: _Side) -> None:
        before = side.cpu()
        found = side.client.ask("throughput", count=_TASKS)
        rate.add(side.name, 1 / found["all"])
        submit.add(side.name, found["submit"] * 1e6)
        client.add(side.name, found["cpu"] * 1e6)
        worker.add(side.name, (side.cpu() - before) / _TASKS * 1e6)

    def one_by_one(side: _Side) -> None:
        trips = side.client.ask("round_trips", count=_ROUND_TRIPS)
        trip.add(side.name, statistics.median(trips) * 1e3)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        sides = [
            stack.enter_context(_at_work(name, number, service, url, folder, first))
            for number, name in enumerate(names, 1)
        ]
        in_turn(sides, _ROUNDS[quick], one_by_one)
        in_turn(sides, _ROUNDS[quick], flood)
        before = {side.name: side.cpu() for side in sides}
        time.sleep(_IDLE)
        for side in sides:
            idle.add(side.name, (side.cpu() - before[side.name]) / _IDLE * 100)
            memory.add(side.name, side.memory())
    figures = [first, rate, submit, trip, worker, client, idle, memory]
    return [figure for figure in figures if figure.samples]
