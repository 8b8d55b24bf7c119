"""Servers that are restarted while results are awaited, and while tasks run."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.endtoend.patience import PATIENCE
from upshot import AsyncResult, clock
from upshot.errors import ResultTimeoutError, ServiceUnavailableError
from upshot_conformance.servers import (
    MariaDBServer,
    MemcachedServer,
    MongoDBServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
)

from . import absences
from .bench import Bench, Slowness, comes_to
from .conftest import FULL, WIDE, Sized
from .scoreboard import Score

WAIT: Final = 4 * PATIENCE  # seconds of each wait; all is over long before
GOAL: Final = 5.0  # seconds in which a result is to come home once its server is there
SLOTS: Final = 8  # tasks at once; those that a worker has no slot for end when it has one
DOWN: Final = 0.5  # seconds for which a server is down on top of what its start takes

RESULTS: Final[dict[str, Callable[[], Any]]] = {
    "redis": partial(RedisServer, persistent=True),
    "postgresql": PostgreSQLServer,
    "memcached": MemcachedServer,
    "mariadb": MariaDBServer,
    "mongo": partial(MongoDBServer, replica_set=True),
    "rpc": RabbitMQServer,
}
LOSSY: Final = frozenset({"memcached"})
"""What keeps nothing across a restart, and says so: its results are read before the next one."""

IN_BRIEF: Final = ("redis", "postgresql", "memcached")

BROKERS: Final[dict[str, Callable[[], Any]]] = {
    "redis": partial(RedisServer, persistent=True),
    "postgresql": PostgreSQLServer,
    "amqp": RabbitMQServer,
}


@dataclass
class Uptime:
    """When a server was down."""

    outages: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def during(self, start: float, end: float) -> float:
        """Return for how many seconds between two moments it was up."""
        down = (min(end, back) - max(start, gone) for gone, back in self.outages)
        return end - start - sum(max(0.0, seconds) for seconds in down)


def restarting(server: Any, turn: int) -> AbstractContextManager[None]:
    """Kill it and stop it in turns."""
    return absences.terminated(server) if turn % 2 else absences.killed(server)


# -- results ---------------------------------------------------------------------------------------


Known: TypeAlias = dict[str, tuple[object, float]]
"""What each wait returned, and when, by task id."""


def wait_for(handle: AsyncResult[Any], known: Known) -> None:
    """Wait in a thread."""
    try:
        found = handle.get(timeout=WAIT, propagate=False)
    except ResultTimeoutError as exc:
        found = exc
    known[handle.id] = found, clock.now()


async def wait_for_all(handles: Sequence[AsyncResult[Any]], known: Known) -> None:
    """Wait in coroutines of one loop."""

    async def wait(handle: AsyncResult[Any]) -> None:
        try:
            found = await handle.aget(timeout=WAIT, propagate=False)
        except ResultTimeoutError as exc:
            found = exc
        known[handle.id] = found, clock.now()

    await asyncio.gather(*map(wait, handles))


def are_known(known: Known, ids: Sequence[str]) -> bool:
    """Tell whether the waits for all of these have returned."""
    return known.keys() >= set(ids)


def restart_results(
    name: str, restarts: int, waits: int, slow: Slowness, broker: str, folder: Path, score: Score
) -> None:
    """Restart the server of the results; a part of the tasks ends before, while and after.

    Where nothing is kept across a restart, no task ends just before one.
    """
    with ExitStack() as stack:
        server = stack.enter_context(RESULTS[name]())
        bench = stack.enter_context(Bench(folder, broker, server.url))
        began, share = clock.monotonic(), waits // restarts
        bench.start_worker("-c", "1", "--threads", str(SLOTS))
        gates = [[bench.gate() for _ in range(3)] for _ in range(restarts)]
        handles = [
            bench.app.send_task("jobs.behind", [str(gates[n // share][n % 3]), n])
            for n in range(waits)
        ]
        known: Known = {}
        pool = stack.enter_context(ThreadPoolExecutor(waits // 2 + 1))
        pool.submit(asyncio.run, wait_for_all(handles[1::2], known))
        for handle in handles[::2]:
            pool.submit(wait_for, handle, known)
        uptime = Uptime()
        for turn, (before, meanwhile, after) in enumerate(gates):
            ids = [handle.id for handle in handles[turn * share : (turn + 1) * share]]
            comes_to(partial(bench.has_begun, ids[:SLOTS]), True)
            if name not in LOSSY:
                before.touch()
            gone = clock.now()
            with restarting(server, turn):
                meanwhile.touch()
                clock.sleep(DOWN)
            uptime.outages.append((gone, clock.now()))
            before.touch()
            after.touch()
            if name in LOSSY:
                comes_to(partial(are_known, known, ids), True)
        comes_to(partial(are_known, known, [handle.id for handle in handles]), True)
        late: list[float] = []
        for n, handle in enumerate(handles):
            found, at = known[handle.id]
            score.submitted += 1
            if isinstance(found, ResultTimeoutError):
                score.hung += 1
            elif found != n:
                score.surprise(f"the wait for {n} returned {found!r}")
            else:
                score.recorded += 1
            if name not in LOSSY:
                score.lost += handle.get(timeout=PATIENCE, propagate=False) != n
                if (finished := handle.finished_at) is not None:
                    late.append(uptime.during(finished.timestamp(), at))
        bench.comes_to_rest()
        score.seconds = clock.monotonic() - began
        score.executed, score.duplicated = (
            sum(bench.ledger.runs().values()),
            bench.ledger.repeated(),
        )
        judge_lateness(score, late or [0.0], "back", slow)


def judge_lateness(score: Score, late: Sequence[float], what: str, slow: Slowness) -> None:
    """Show how late things were, and judge it as on a machine that has nothing else to do."""
    ordered = sorted(late)
    worst, most = ordered[-1], ordered[len(ordered) * 99 // 100]
    score.remark(f"{what} after {worst:.1f} s at the latest, 99 % after {most:.1f} s")
    if FULL and most > GOAL * slow.factor:
        score.surprise(f"{what} only after {most:.1f} s, on a machine {slow.factor:.1f}x too slow")


# -- messages --------------------------------------------------------------------------------------


class Load(threading.Thread):
    """Sends tasks until it is told to stop, whatever becomes of the broker."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(name="load")
        self.sent: list[AsyncResult[Any]] = []
        self.stopping = threading.Event()
        self._bench = bench

    def run(self) -> None:
        for n in itertools.count():
            while not self.stopping.wait(0.01):
                try:  # under the same id, however often it takes
                    handle = self._bench.app.send_task("jobs.echo", [n, 0.03], task_id=f"load-{n}")
                except ServiceUnavailableError:
                    continue
                self.sent.append(handle)
                break
            if self.stopping.is_set():
                return


def has_run(bench: Bench, count: int) -> bool:
    """Tell whether so many tasks have begun."""
    return len(bench.ledger.runs()) >= count


def restart_broker(
    name: str, restarts: int, slow: Slowness, store: str, folder: Path, score: Score
) -> None:
    """Restart the server of the messages while tasks are sent and run."""
    with ExitStack() as stack:
        server = stack.enter_context(BROKERS[name]())
        bench = stack.enter_context(Bench(folder, server.url, store, {"worker_lease": 5.0}))
        began = clock.monotonic()
        worker = bench.start_worker("-c", "2")
        comes_to(lambda: len(worker.children()), 2)
        children = worker.children()
        load = Load(bench)
        load.start()
        late: list[float] = []
        try:
            for turn in range(restarts):
                comes_to(partial(has_run, bench, len(bench.ledger.runs()) + 10), True)
                with restarting(server, turn):
                    clock.sleep(DOWN)
                back, known = clock.monotonic(), len(bench.ledger.runs())
                comes_to(partial(has_run, bench, known + 1), True)
                late.append(clock.monotonic() - back)
        finally:
            load.stopping.set()
            load.join()
        for n, handle in enumerate(load.sent):
            try:
                found = handle.get(timeout=PATIENCE, propagate=False)
            except ResultTimeoutError:
                score.lost += 1
                continue
            score.recorded += found == n
            if found != n:
                score.surprise(f"task {n}: {found!r}")
        score.submitted = len(load.sent)
        if worker.process.poll() is not None or worker.children() != children:
            score.surprise("the worker did not live")
        bench.comes_to_rest()
        score.seconds = clock.monotonic() - began
        score.executed, score.duplicated = (
            sum(bench.ledger.runs().values()),
            bench.ledger.repeated(),
        )
        judge_lateness(score, late, "going on", slow)


def finish_without_broker(name: str, store: str, folder: Path, score: Score) -> None:
    """Let tasks end while nobody takes the acknowledgement: they come again, and are known."""
    with ExitStack() as stack:
        server = stack.enter_context(BROKERS[name]())
        bench = stack.enter_context(Bench(folder, server.url, store, {"worker_lease": 2.0}))
        began, gate = clock.monotonic(), bench.gate()
        bench.start_worker("-c", "2")
        handles = [bench.app.send_task("jobs.behind", [str(gate), n]) for n in range(2)]
        comes_to(partial(bench.has_begun, [handle.id for handle in handles]), True)
        with absences.killed(server):
            gate.touch()
            for n, handle in enumerate(handles):
                score.submitted += 1
                found = handle.get(timeout=PATIENCE)
                score.recorded += found == n
                score.lost += found != n
            comes_to(lambda: len(bench.logged("may come again, and its task's record")) >= 2, True)
        comes_to(lambda: len(bench.logged("not run: it has ended")) >= 2, True)
        bench.comes_to_rest()
        score.seconds = clock.monotonic() - began
        score.executed, score.duplicated = (
            sum(bench.ledger.runs().values()),
            bench.ledger.repeated(),
        )
        if score.duplicated:
            score.surprise("a task was run again that had ended")


# -- all at once -----------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.experiment(3)
def test_servers_restart(
    redis_server: RedisServer, tmp_path: Path, new_score: Callable[[str], Score], sized: Sized
) -> None:
    other, restarts, waits, slow = redis_server.url, sized(5, 2), sized(200, 40), Slowness()
    tries: dict[str, Callable[[Path, Score], None]] = {
        f"results on {name}": partial(restart_results, name, restarts, waits, slow, other)
        for name in (RESULTS if WIDE else IN_BRIEF)
    }
    for name in BROKERS:
        times = sized(10, 1 if name == "amqp" else 2)
        tries[f"messages on {name}"] = partial(restart_broker, name, times, slow, other)
    for name in BROKERS if WIDE else ("redis",):
        tries[f"acknowledgements to {name}"] = partial(finish_without_broker, name, other)
    scores = {name: new_score(name) for name in tries}
    with slow, ThreadPoolExecutor(len(tries)) as pool:
        running = {
            name: pool.submit(attempt, tmp_path / re.sub(r"\W+", "-", name), scores[name])
            for name, attempt in tries.items()
        }
    for name, future in running.items():
        future.result()
        scores[name].judge()
