"""Tasks that crash, hang, and leave disorder: each ends as it should, and its neighbours too."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App, clock
from upshot.errors import RemoteError, TimeLimitExceededError, UpshotError, WorkerLostError

from .conftest import BROKERS, FULL, JOBS, WIDE, Sized
from .ledger import Ledger
from .scoreboard import Score

StartWorker = Callable[..., Any]
Call = tuple[str, list[Any]]

SINGLE = [param for param in BROKERS if WIDE or param.id == "redis"]
LETHAL = [param for param in BROKERS if WIDE or param.id in ("amqp", "sqlite")]
DELIVERIES: Final = 3  # the default of `task_max_deliveries`
LEASE: Final = 2  # seconds until a dead process's task comes again
YOUNG: Final = 1.0  # seconds within which a dead process is replaced, on an idle machine

FATAL: Final[list[Call]] = [
    ("segfault", []),
    ("leave", [0]),
    ("leave", [1]),
    ("leave", [69]),
    ("be_killed", []),
    ("leave_with_child", []),
    ("close_descriptors", []),
]
RAISING: Final[list[tuple[str, list[Any], type[Exception], str]]] = [
    ("raise_", ["MemoryError"], MemoryError, ""),
    ("raise_", ["SystemExit"], RemoteError, "builtins.SystemExit"),
    ("raise_", ["KeyboardInterrupt"], RemoteError, "builtins.KeyboardInterrupt"),
    ("raise_in_loop", ["SystemExit"], RemoteError, "builtins.SystemExit"),
    ("raise_in_loop", ["KeyboardInterrupt"], RemoteError, "builtins.KeyboardInterrupt"),
    ("recurse", [], RecursionError, ""),
    ("eat_memory", [], MemoryError, ""),
]
DISORDER: Final = [
    "fork_and_return",
    "fork_and_live",
    "leave_threads",
    "close_standard",
    "close_streams",
    "replace_streams",
    "go_nowhere",
    "take_signals",
    "mask_signals",
    "set_alarm",
    "set_umask",
    "bend_interpreter",
    "bend_surroundings",
    "silence_logging",
    "run_loops",
    "close_app",
]
ORDER: Final = {
    "handlers": True,
    "mask": [],
    "alarm": 0.0,
    "folder": True,
    "gc": True,
    "recursion": True,
    "descriptors": [0, 1, 2],
    "streams": True,
}


@pytest.fixture(params=BROKERS)
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The broker, which keeps or carries the results too."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.fixture
def app(project: Path, service_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The caller's side of the tasks of `programs/poison.py`."""
    shutil.copy(JOBS.with_name("poison.py"), project)
    over_broker = service_url.startswith("amqp:")
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://" if over_broker else service_url)
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", str(LEASE))
    with App() as app:
        yield app


def send(app: App, name: str, args: list[Any]) -> Any:
    """Send one of the poisonous tasks."""
    return app.send_task(f"poison.{name}", args)


def outcome(handle: Any, score: Score) -> Any:
    """Return the value or the exception of a task; count it as hung if there is none."""
    try:
        value = handle.get(timeout=PATIENCE, propagate=False)
    except UpshotError as exc:
        score.hung += 1
        return exc
    score.recorded += 1
    return value


def expect(score: Score, what: str, seen: object, expected: object) -> None:
    """Count a surprise unless what is seen is what was expected."""
    if seen != expected:
        score.surprise(f"{what}: {seen!r} is not {expected!r}")


def count(score: Score, ledger: Ledger, submitted: int) -> None:
    """Fill in what the ledger tells."""
    score.submitted = submitted
    score.executed = sum(ledger.runs().values())
    score.duplicated = ledger.repeated()


@pytest.mark.experiment(9)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service_url", LETHAL, indirect=True)
def test_tasks_that_kill_their_process(
    app: App,
    ledger: Ledger,
    score: Score,
    start_worker: StartWorker,
    sized: Sized,
    dice: random.Random,
) -> None:
    """Each fails after three deliveries, and not one of its neighbours."""
    calls: list[Call] = [("", [n]) for n in range(sized(300, 40))]
    calls += [*FATAL, *([("hold_the_interpreter", [])] if FULL else [])] * sized(2, 1)
    dice.shuffle(calls)
    worker = start_worker("-A", "poison", "-c", "2")

    handles = [
        send(app, *call) if call[0] else app.send_task("jobs.echo", call[1]) for call in calls
    ]

    for (name, args), handle in zip(calls, handles, strict=True):
        ended = outcome(handle, score)
        if not name:
            expect(score, "a neighbour", ended, args[0])
        elif type(ended) is not WorkerLostError:
            score.surprise(f"{name}{args} ended with {ended!r}")
        else:
            expect(score, f"deliveries of {name}", ledger.runs()[handle.id], DELIVERIES)
    # One that is held beyond its lease has its end by another, and is killed a little later.
    held = sum(name == "hold_the_interpreter" for name, _ in calls)
    comes_to(lambda: worker.output().count("is killed: a task holds it"), held * DELIVERIES)
    expect(score, "exit code", worker.stop(PATIENCE), 0)
    count(score, ledger, len(calls))
    score.judge()


@pytest.mark.experiment(9)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service_url", SINGLE, indirect=True)
def test_tasks_that_end_badly(
    app: App, ledger: Ledger, score: Score, start_worker: StartWorker, sized: Sized
) -> None:
    """What a task raises is its own failure; a hard limit ends what waits for ever."""
    worker = start_worker("-A", "poison", "-c", "2")
    calls = RAISING * sized(5, 1)

    handles = [send(app, name, args) for name, args, _, _ in calls]
    blocked = send(app, "block", [])
    asking = send(app, "ask", ["jobs.echo", ["an answer"]])
    neighbour = send(app, "echo_in_loop", ["alive"])

    for (name, args, kind, original), handle in zip(calls, handles, strict=True):
        ended = outcome(handle, score)
        if type(ended) is not kind or (type(ended) is RemoteError and not ended.is_(original)):
            score.surprise(f"{name}{args} ended with {ended!r}")
    expect(
        score, "a blocked task", isinstance(outcome(blocked, score), TimeLimitExceededError), True
    )
    expect(score, "a task that asks", outcome(asking, score), "an answer")
    expect(score, "a neighbour", outcome(neighbour, score), "alive")
    expect(score, "exit code", worker.stop(PATIENCE), 0)
    count(score, ledger, len(calls) + 3)
    score.judge()


@pytest.mark.experiment(9)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service_url", SINGLE, indirect=True)
def test_tasks_that_leave_disorder(
    app: App,
    ledger: Ledger,
    score: Score,
    start_worker: StartWorker,
    sized: Sized,
    dice: random.Random,
) -> None:
    """The next task in the same process finds it in order, and the worker hears of its end."""
    worker = start_worker("-A", "poison", "-c", "1")
    before = outcome(send(app, "look", []), score)
    kinds = [*DISORDER, *["bombs"] * 2] * sized(3, 1)
    dice.shuffle(kinds)

    found: list[tuple[str, Any]] = []
    for kind in kinds:
        bombs = kind == "bombs"
        found += [
            (kind, send(app, "leave_bombs", []) if bombs else send(app, "disturb", [kind])),
            ("", send(app, "echo_in_loop", [kind])),
            ("look", send(app, "look", [])),
        ]

    for number, (kind, handle) in enumerate(found):
        after = kinds[number // 3]
        if kind == "look":
            expect(score, f"after {after}", outcome(handle, score), before)
        else:
            expect(score, f"{kind or 'a neighbour'} after {after}", outcome(handle, score), after)
    expect(score, "the first look", {**before, **ORDER}, before)
    children = worker.children()
    score.remark(f"{len(set(ledger.runs()))} tasks in process {children}")
    expect(score, "exit code", worker.stop(PATIENCE), 0)
    count(score, ledger, len(found) + 1)
    score.executed += len(kinds) + 1  # `look` writes nothing down
    expect(score, "repeated runs", score.duplicated, 0)
    score.judge()


def _others(worker: Any, victim: int) -> int:
    """Return how many processes a worker has besides one."""
    return len(set(worker.children()) - {victim})


@pytest.mark.experiment(9)
@pytest.mark.parametrize("service_url", SINGLE, indirect=True)
def test_a_dead_process_is_replaced_at_once(
    app: App, score: Score, start_worker: StartWorker, sized: Sized, dice: random.Random
) -> None:
    """Killed as soon as it is there, again and again."""
    worker = start_worker("-A", "poison", "-c", "2")
    comes_to(lambda: len(worker.children()), 2)
    delays: list[float] = []

    for _ in range(sized(20, 4)):
        victim = dice.choice(worker.children())
        began = clock.monotonic()
        os.kill(victim, signal.SIGKILL)
        comes_to(partial(_others, worker, victim), 2)
        delays.append(clock.monotonic() - began)

    score.submitted = score.executed = len(delays)
    score.recorded = int(outcome(app.send_task("jobs.echo", [1]), score) == 1)
    score.remark(f"replaced in {max(delays):.2f} s at most")
    late = [each for each in delays if each > (YOUNG if FULL else PATIENCE / 6)]
    score.hung += len(late)
    expect(score, "exit code", worker.stop(PATIENCE), 0)
    score.judge()
