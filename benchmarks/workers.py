"""Task queues at work: for each a client and a worker for two tasks at once, and what they use."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.applications import APPLICATIONS
from benchmarks.player import ROOT, Player, python_of

__all__ = ["Place", "Side", "all_at_work", "at_work", "places", "taking_part"]

_TICK: Final = os.sysconf("SC_CLK_TCK")
_ENDS: Final = 5.0  # seconds for a worker to end by itself

Place = tuple[str, str]
"""URLs of a broker and of a result store."""


class Side:
    """A task queue at work.

    Attributes:
        name: whose it is.
        client: the process that submits.
        first: what it held and needed for its first result, as `benchmarks.client` answers.
        start: seconds from the start of the worker until then.
    """

    def __init__(self, name: str, client: Player, worker: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.client = client
        self.first: dict[str, float] = {}
        self.start = 0.0
        self._worker = worker

    def cpu(self) -> float:
        """Return the processor time that the worker's processes have used, in seconds."""
        return sum(map(_cpu, self._processes()))

    def resident(self) -> float:
        """Return the resident memory of the worker's processes in MB, each counted in full."""
        return sum(_memory(pid, "Rss:") for pid in self._processes())

    def proportional(self) -> float:
        """Return the same, each page divided by the number of processes that share it."""
        return sum(_memory(pid, "Pss:") for pid in self._processes())

    def _processes(self) -> Iterator[int]:
        group = os.getpgid(self._worker.pid)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == group:
                    yield int(entry.name)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK  # with what its ended children used


def _memory(pid: int, field: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def taking_part(service: str, contenders: Sequence[str]) -> list[str]:
    """Return those of the contenders that are task queues for this service."""
    return [each for each in contenders if service in APPLICATIONS.get(each, ("", ()))[1]]


def places(service: str, url: str, folder: Path, names: Sequence[str]) -> dict[str, Place]:
    """Return a place for each application that no other one uses."""
    found: dict[str, Place] = {}
    for number, name in enumerate(names, 1):
        if service == "redis":
            place = url.rsplit("/", 1)[0] + f"/{number}"
            found[name] = place, place
        elif service == "sqlite":
            place = f"sqlite:///{folder}/{name}.db"
            found[name] = place, place
        else:
            found[name] = "amqp" + url[url.index("://") :], "rpc://"
    return found


@contextlib.contextmanager
def at_work(
    name: str, place: Place, folder: Path, workers_place: Place | None = None
) -> Generator[Side]:
    """Start a worker and a client, and wait for a first result.

    Args:
        name: of the application.
        place: where it works.
        folder: for what the worker writes.
        workers_place: the same as the worker is to see it; None if that makes no difference.

    Raises:
        RuntimeError: no result came.
    """
    environment, _ = APPLICATIONS[name]
    variables, workers = _variables(place), _variables(workers_place or place)
    arguments = _arguments(name, environment, workers)
    log = folder / f"{name}.log"
    with (
        Player(name, environment, "benchmarks.client", name, variables=variables) as client,
        log.open("wb") as said,
    ):
        began = time.perf_counter()
        worker = subprocess.Popen(
            [python_of(environment), "-W", "ignore", *arguments],
            cwd=folder,
            env={**os.environ, **workers},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        side = Side(name, client, worker)
        try:
            side.first = client.ask("first")
            side.start = time.perf_counter() - began
            yield side
        except RuntimeError as exc:
            raise RuntimeError(f"{exc}; its worker: {log.read_text()[-500:]}") from exc
        finally:
            _end(worker)


def all_at_work(stack: contextlib.ExitStack, where: dict[str, Place], folder: Path) -> list[Side]:
    """Start every application, until the stack is closed; leave out, with a line, who fails."""
    sides: list[Side] = []
    for name, place in where.items():
        try:
            sides.append(stack.enter_context(at_work(name, place, folder)))
        except RuntimeError as exc:
            print(f"left out: {exc}", file=sys.stderr)
    return sides


def _variables(place: Place) -> dict[str, str]:
    broker, results = place
    return {"BENCH_BROKER": broker, "BENCH_RESULTS": results, "PYTHONPATH": str(ROOT)}


def _arguments(name: str, environment: str, variables: dict[str, str]) -> list[str]:
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


def _end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(_ENDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
