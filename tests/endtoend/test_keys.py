"""Idempotency keys with real services, callers and workers: fifty calls at once, one execution."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from upshot import App
from upshot.errors import UnsupportedError

from .patience import PATIENCE, comes_to
from .services import SERVICES

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = Path(__file__).parent / "programs" / "call_with_key.py"

PROCESSES: Final = 5
THREADS: Final = 10

MARK: Final = """

@app.task
def tick(path):
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)
"""

PAIRS: Final = [
    ("sqlite", "sqlite"),
    ("redis", "redis"),
    ("postgresql", "postgresql"),
    ("redis", "postgresql"),
    ("redis", "mongo"),
    ("rpc", "memcached"),
    ("rpc", "mariadb"),
]
"""A broker and a backend: one service, two, and a broker that does not know a message again."""

BY_NAME: Final = {service.name: service for service in SERVICES}


@pytest.fixture(params=PAIRS, ids="+".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The broker and the backend, by name."""
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture
def service_url(pair: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where messages wait."""
    return BY_NAME[pair[0]].find(request, tmp_path)


@pytest.fixture
def app(
    project: Path,
    pair: tuple[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[App]:
    """The caller's side; worker and callers get the same services by the environment."""
    with (project / "jobs.py").open("a") as file:
        file.write(MARK)
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", BY_NAME[pair[1]].find(request, tmp_path))
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", str(PATIENCE / 2))  # a busy machine is no outage
    with App() as app:
        yield app


def caller(*arguments: object) -> subprocess.Popen[str]:
    """Start a process that is about to call."""
    return subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(300)
def test_of_fifty_calls_in_five_processes_one_is_executed(
    app: App, project: Path, start_worker: Callable[..., Any]
) -> None:
    start_worker("-c", "2")
    path = project / "ticks"
    handles: list[tuple[str, bool]] = []
    with ExitStack() as stack:
        callers = [
            stack.enter_context(caller("jobs.tick", path, "invoice-42", THREADS))
            for _ in range(PROCESSES)
        ]
        for each in callers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in callers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in callers:
            out, _ = each.communicate(timeout=2 * PATIENCE)
            handles += json.loads(out)

    assert len(handles) == PROCESSES * THREADS
    assert len({task_id for task_id, _ in handles}) == 1
    assert [is_repeat for _, is_repeat in handles].count(False) == 1
    assert app.AsyncResult(handles[0][0]).get(timeout=PATIENCE) == 1
    after = app.send_task("jobs.tick", [str(project / "after")], key="another")
    assert after.get(timeout=PATIENCE) == 1
    comes_to(lambda: is_idle(app), True)
    assert path.read_text() == "x"


def is_idle(app: App) -> bool:
    """Tell whether no message waits, and none is at a worker."""
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    return not (status["default"].ready or status["default"].leased)


KILLED_IN_BETWEEN: Final = """
import os, signal, sys
from upshot import App
from upshot.sending import Outbox

Outbox._post = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
App().send_task("jobs.tick", [sys.argv[1]], key="k")
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "pair", [("sqlite", "sqlite"), ("redis", "redis"), ("rpc", "memcached")], ids="+".join,
    indirect=True,
)  # fmt: skip
def test_a_caller_that_dies_before_it_sends_leaves_its_key_to_the_next(
    app: App, project: Path, start_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", "3")
    start_worker("-c", "1")
    path = project / "ticks"
    died = subprocess.run(
        [sys.executable, "-c", KILLED_IN_BETWEEN, str(path)], timeout=PATIENCE, check=False
    )
    assert died.returncode == -signal.SIGKILL

    with App() as impatient:
        again = impatient.send_task("jobs.tick", [str(path)], key="k")
        assert again.is_repeat
        assert again.get(timeout=PATIENCE) == 1
        assert impatient.send_task("jobs.tick", [str(path)], key="k") == again
    assert path.read_text() == "x"


@pytest.mark.parametrize("pair", [("rpc", "rpc")], ids="+".join, indirect=True)
def test_results_that_are_carried_take_no_keys(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://")
    with App() as carrying:
        with pytest.raises(UnsupportedError, match="keeps no keys"):
            carrying.send_task("jobs.tick", ["x"], key="k")
        with pytest.raises(UnsupportedError, match="keeps no keys"):
            carrying.forget_key("jobs.tick", "k")


# -- the page -------------------------------------------------------------------------------------
