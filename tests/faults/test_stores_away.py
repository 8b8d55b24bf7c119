"""A result store that is away exactly when tasks end: not one result is lost or falsified."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.endtoend.patience import PATIENCE
from upshot import AsyncResult, State, clock
from upshot.errors import ResultTimeoutError, TimeLimitExceededError
from upshot_conformance.servers import (
    MariaDBServer,
    MemcachedServer,
    MongoDBServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
)

from . import absences
from .bench import Bench, comes_to, watch
from .conftest import FULL
from .scoreboard import Score

Absence: TypeAlias = Callable[[], AbstractContextManager[None]]
Lane: TypeAlias = Callable[[ExitStack, Path], "tuple[str, dict[str, Absence]]"]
"""Starts a service; returns its URL and the ways in which it can be away."""

WAYS: Final = ("return", "raise", "retry", "report", "return", "return", "return", "return")
"""How the tasks end that run while the store is away; each has a thread of the worker."""

TOLD_EVERY: Final = 30.0  # seconds between two lines of the log about one task that waits
FEW: Final = 6  # lines about a task that is run twice, and has something to say while it runs
LEASE: Final = 5.0  # seconds; the longer absences outlast it many times


# -- services --------------------------------------------------------------------------------------


def servers(make: Callable[[], Any], stack: ExitStack, _: Path) -> tuple[str, dict[str, Absence]]:
    server = stack.enter_context(make())
    return server.url, {
        "killed": partial(absences.killed, server),
        "terminated": partial(absences.terminated, server),
    }


def redis(stack: ExitStack, _: Path) -> tuple[str, dict[str, Absence]]:
    server = stack.enter_context(RedisServer(persistent=True))
    return server.url, {
        "killed": partial(absences.killed, server),
        "terminated": partial(absences.terminated, server),
        "out of memory": partial(absences.out_of_memory, server),
        "read-only": partial(absences.read_only, server),
        "unable to save": partial(absences.unable_to_save, server),
        "forbidden": partial(absences.forbidden, server),
        "crowded": partial(absences.crowded, server),
    }


def postgresql(stack: ExitStack, _: Path) -> tuple[str, dict[str, Absence]]:
    server = stack.enter_context(PostgreSQLServer(arguments=["-c", "max_connections=30"]))
    return server.url, {
        "killed": partial(absences.killed, server),
        "terminated": partial(absences.terminated, server),
        "read-only": partial(absences.standby, server),
        "locked out": partial(absences.locked_out, server),
        "crowded": partial(absences.full_house, server),
    }


def mariadb(stack: ExitStack, _: Path) -> tuple[str, dict[str, Absence]]:
    server = stack.enter_context(MariaDBServer())
    return absences.modest_url(server), {
        "killed": partial(absences.killed, server),
        "terminated": partial(absences.terminated, server),
        "read-only": partial(absences.replica, server),
        "revoked": partial(absences.revoked, server),
    }


def small_disk(_: ExitStack, folder: Path) -> tuple[str, dict[str, Absence]]:
    disk = folder / "disk"
    disk.mkdir()
    absences.mount_small_disk(disk)
    return f"sqlite:///{disk}/results.db", {"full": partial(absences.disk_full, disk)}


def sqlite(_: ExitStack, folder: Path) -> tuple[str, dict[str, Absence]]:
    path = folder / "results.db"
    return f"sqlite:///{path}", {"locked": partial(absences.locked, path)}


mongo = partial(servers, MongoDBServer)
memcached = partial(servers, MemcachedServer)
rpc = partial(servers, RabbitMQServer)


# -- what happens on each --------------------------------------------------------------------------


def be_away(bench: Bench, score: Score, name: str, absence: Absence, seconds: float) -> float:
    """Let tasks end while the store is away; return how long after its return they were done."""
    gate = bench.gate()
    handles = [
        bench.app.send_task("jobs.behind", [str(gate), f"{name} {n}", how])
        for n, how in enumerate(WAYS)
    ]
    comes_to(partial(bench.has_begun, [handle.id for handle in handles]), True)
    fewest = len(handles)

    def look() -> None:
        nonlocal fewest
        fewest = min(fewest, bench.messages())

    with ThreadPoolExecutor(len(handles)) as pool:
        patience = seconds + 2 * PATIENCE
        waits = [pool.submit(outcome, handle, patience) for handle in handles]
        # A wait that begins while the store refuses is refused; one that has begun goes on.
        comes_to(lambda: bench.app.results.stats()["waiters"], len(handles))
        gone = clock.monotonic()
        with absence():
            gate.touch()
            watch(look, seconds)
        back = clock.monotonic()
        done = [wait.result() for wait in waits]
    for n, (handle, how, (found, _)) in enumerate(zip(handles, WAYS, done, strict=True)):
        judge(score, f"{name} for {seconds:g} s, {how}", handle, found, f"{name} {n}", how)
    for _ in range(len(handles) - fewest):
        score.surprise(f"{name}: a message was acknowledged while the store was away")
    told = [len(bench.logged(f"task {handle.id} ")) for handle in handles]
    if max(told) > FEW + 2 * (back - gone) / TOLD_EVERY:
        score.surprise(f"{name}: {max(told)} lines in the log about one task in {seconds:g} s")
    return max(at for _, at in done) - back


def outcome(handle: AsyncResult[Any], timeout: float) -> tuple[object, float]:
    """Wait for what became of a task; return that, and when it was known."""
    try:
        found = handle.get(timeout=timeout, propagate=False)
    except ResultTimeoutError as exc:
        found = exc
    return found, clock.monotonic()


def judge(
    score: Score, what: str, handle: AsyncResult[Any], found: object, value: str, how: str
) -> None:
    """Count one task, whose outcome is `found` and should have been `value`."""
    score.submitted += 1
    if isinstance(found, ResultTimeoutError):
        score.lost += 1
        return
    wanted = State.FAILURE if how == "raise" else State.SUCCESS
    seen = str(found) if isinstance(found, RuntimeError) and how == "raise" else found
    if (handle.state, seen) == (wanted, value):
        score.recorded += 1
    else:
        score.surprise(f"{what}: {handle.state} {found!r}")


def run_lane(
    lane: Lane, plan: list[tuple[str, float]], broker: str, folder: Path, score: Score
) -> None:
    """Start a service and a worker, and let the service be away in the planned ways."""
    with ExitStack() as stack:
        folder.mkdir()
        url, ways = lane(stack, folder)
        bench = stack.enter_context(Bench(folder, broker, url, {"worker_lease": LEASE}))
        began = clock.monotonic()
        bench.start_worker("-c", "1", "--threads", str(len(WAYS)))
        late = {
            f"{name} {seconds:g} s": be_away(bench, score, name, ways[name], seconds)
            for name, seconds in plan
        }
        bench.comes_to_rest()
        score.seconds = clock.monotonic() - began
        runs = bench.ledger.runs()
        score.executed = sum(runs.values())
        score.duplicated = score.executed - len(runs) - len(plan) * WAYS.count("retry")
        slowest = max(late, key=lambda name: late[name])
        score.remark(f"done {late[slowest]:.1f} s after its return at the latest ({slowest})")
        if lost := bench.logged("lost the lease"):
            score.remark(f"{len(lost)} leases ran out")


def stop_meanwhile(bench: Bench, score: Score, absence: Absence) -> None:
    """The bound of its patience: the message goes back, the log says so, another one runs it."""
    gate = bench.gate()
    worker = bench.start_worker("-c", "1", "--grace", "2")
    handle = bench.app.send_task("jobs.behind", [str(gate), "kept"])
    comes_to(lambda: bench.has_begun([handle.id]), True)

    with absence():
        gate.touch()
        comes_to(lambda: bool(bench.logged("its outcome is not stored yet")), True)
        code = worker.stop(PATIENCE)
        if bench.messages() != 1:
            score.surprise("the message did not go back")
        if not bench.logged(f"task {handle.id} jobs.behind is given back"):
            score.surprise("the log does not say that the message went back")
        if code != 1:
            score.surprise(f"exit code {code}")
    bench.start_worker("-c", "1")

    found, _ = outcome(handle, PATIENCE)
    judge(score, "stopped", handle, found, "kept", "return")


def begin_meanwhile(bench: Bench, score: Score, absence: Absence) -> None:
    """None runs unrecorded. A message is kept for a lease, then goes back; no busy loop."""
    seconds = 5.0
    handles = [bench.app.send_task("jobs.echo", [n]) for n in range(4)]

    with absence():
        bench.start_worker("-c", "2")
        comes_to(lambda: bool(bench.logged("is given back")), True)
        began = clock.monotonic()
        clock.sleep(seconds)
        given_back = len(bench.logged("is given back"))
        # Two processes, each of which keeps a message for a lease of two seconds; twice that often
        # is still no busy loop, which gives back more than a hundred.
        if given_back > 4 * (1 + (clock.monotonic() - began) / 2):
            score.surprise(f"messages went back {given_back} times in {seconds:g} s")
        if runs := sum(bench.ledger.runs().values()):
            score.surprise(f"{runs} tasks ran without a record that they began")
        if bench.messages() < len(handles):
            score.surprise("a message is gone")

    for n, handle in enumerate(handles):
        found, _ = outcome(handle, PATIENCE)
        score.submitted += 1
        score.recorded += found == n
        score.lost += found != n
    score.remark(f"{max(handle.attempts for handle in handles)} attempts")


def strike_meanwhile(bench: Bench, score: Score, absence: Absence) -> None:
    """The task fails by its limit, once: whoever stores that keeps the lease meanwhile."""
    bench.start_worker("-c", "2")
    score.submitted = 1
    while (seen := struck(bench, absence)) is None:  # on a busy machine
        continue

    found, left = seen
    if left != 1:
        score.surprise("the message was acknowledged before the outcome was stored")
    score.recorded = int(isinstance(found, TimeLimitExceededError))
    score.lost = 1 - score.recorded


def struck(bench: Bench, absence: Absence) -> tuple[object, int] | None:
    """Return the end of a task that ran too long meanwhile, and how many messages were kept.

    None if its limit struck before the store was away.
    """
    handle = bench.app.send_task("jobs.endless")
    comes_to(lambda: bench.has_begun([handle.id]), True)
    with absence():
        away = clock.now()
        clock.sleep(8.0)  # its limit, and three leases
        left = bench.messages()
    found, _ = outcome(handle, PATIENCE)
    record = bench.app.results.load(handle.id)
    if record is not None and record.finished_at is not None and record.finished_at < away:
        return None
    return found, left


Scenario: TypeAlias = Callable[[Bench, Score, Absence], None]

SCENARIOS: Final[dict[str, tuple[Scenario, str]]] = {
    "worker stopped, store killed": (stop_meanwhile, "killed"),
    "worker stopped, store forbidden": (stop_meanwhile, "forbidden"),
    "tasks to begin, store killed": (begin_meanwhile, "killed"),
    "tasks to begin, store forbidden": (begin_meanwhile, "forbidden"),
    "time limit strikes": (strike_meanwhile, "killed"),
}


def run_scenario(scenario: Scenario, way: str, broker: str, folder: Path, score: Score) -> None:
    """Do something else than wait while a Redis with results is away."""
    with ExitStack() as stack:
        url, ways = redis(stack, folder)
        bench = stack.enter_context(Bench(folder, broker, url, {"worker_lease": 2.0}))
        began = clock.monotonic()
        scenario(bench, score, ways[way])
        bench.comes_to_rest()
        score.seconds = clock.monotonic() - began
        score.executed = sum(bench.ledger.runs().values())
        score.duplicated = bench.ledger.repeated()
        if lost := bench.logged("lost the lease"):
            score.remark(f"{len(lost)} leases ran out")


BRIEF: Final[dict[str, tuple[Lane, list[tuple[str, float]]]]] = {
    "redis": (
        redis,
        [
            ("killed", 0.1),
            ("terminated", 3.0),
            ("out of memory", 1.0),
            ("read-only", 1.0),
            ("unable to save", 1.0),
            ("forbidden", 1.0),
            ("crowded", 1.0),
        ],
    ),
    "postgresql": (
        postgresql,
        [("killed", 0.1), ("read-only", 1.0), ("locked out", 1.0), ("crowded", 1.0)],
    ),
    "mariadb": (mariadb, [("killed", 0.1), ("read-only", 1.0), ("revoked", 1.0)]),
    "mongo": (mongo, [("killed", 0.1)]),
    "memcached": (memcached, [("killed", 0.1), ("terminated", 1.0)]),
    "sqlite": (sqlite, [("locked", 0.1), ("locked", 7.0)]),
    "disk": (small_disk, [("full", 0.1), ("full", 3.0)]),
}

_DOWN: Final = [(how, seconds) for seconds in (0.1, 5.0, 30.0) for how in ("killed", "terminated")]
LONG: Final[dict[str, tuple[Lane, list[tuple[str, float]]]]] = {
    "redis refuses": (
        redis,
        [
            (how, seconds)
            for seconds in (0.1, 5.0)
            for how in ("out of memory", "read-only", "unable to save", "forbidden", "crowded")
        ],
    ),
    "redis": (redis, _DOWN),
    "redis for long": (redis, [("killed", 120.0)]),
    "redis is full for long": (redis, [("out of memory", 120.0)]),
    "postgresql refuses": (
        postgresql,
        [
            (how, seconds)
            for seconds in (0.1, 5.0)
            for how in ("read-only", "locked out", "crowded")
        ],
    ),
    "postgresql": (postgresql, _DOWN),
    "postgresql for long": (postgresql, [("terminated", 120.0)]),
    "mariadb": (
        mariadb,
        [(how, seconds) for seconds in (0.1, 5.0) for how in ("read-only", "revoked")] + _DOWN,
    ),
    "mariadb for long": (mariadb, [("killed", 120.0)]),
    "mongo": (mongo, _DOWN),
    "mongo for long": (mongo, [("terminated", 120.0)]),
    "memcached": (memcached, _DOWN),
    "memcached for long": (memcached, [("killed", 120.0)]),
    "rpc": (rpc, [("killed", 0.1), ("terminated", 5.0)]),
    "sqlite": (sqlite, [("locked", seconds) for seconds in (0.1, 5.0, 30.0)]),
    "sqlite for long": (sqlite, [("locked", 120.0)]),
    "disk": (small_disk, [("full", seconds) for seconds in (0.1, 5.0, 30.0)]),
    "disk for long": (small_disk, [("full", 120.0)]),
}


@pytest.mark.timeout(600)
@pytest.mark.experiment(4)
def test_a_store_is_away(
    redis_server: RedisServer, tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    broker, plans = redis_server.url, LONG if FULL else BRIEF
    tries: dict[str, Callable[[Path, Score], None]] = {
        f"{name}, as tasks end": partial(run_lane, lane, plan, broker)
        for name, (lane, plan) in plans.items()
    }
    if not absences.can_mount():
        tries = {name: each for name, each in tries.items() if not name.startswith("disk")}
    tries |= {name: partial(run_scenario, *each, broker) for name, each in SCENARIOS.items()}
    scores = {name: new_score(name) for name in tries}
    with ThreadPoolExecutor(len(tries)) as pool:
        running = {
            name: pool.submit(attempt, tmp_path / re.sub(r"\W+", "-", name), scores[name])
            for name, attempt in tries.items()
        }
    for name, future in running.items():
        future.result()
        scores[name].judge()
