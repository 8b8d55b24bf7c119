"""Interpreters that end while everything is open: at once, and without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import AS_IN_FRONT
from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES, Service
from upshot import clock

from .conftest import FULL, JOBS, WIDE
from .scoreboard import Score

PROGRAM: Final = JOBS.with_name("leaving.py")
WAYS: Final = [
    "fall_off",
    "leave",
    "leave_in_thread",
    "be_interrupted",
    "forget_coroutines",
    "fork",
    "wait_in_child",
    "close_in_part",
]
SOON: Final = 2.0  # seconds from the end of the program to the end of the process
OWN: Final = 0.4  # seconds of that which some of the ways take themselves
SERVED: Final = [each for each in SERVICES if each.name not in {"memory", "mongo-standalone"}]
SHORT: Final = {"redis"}
CHOSEN: Final = [each for each in SERVED if WIDE or each.name in SHORT]


@pytest.mark.experiment(8)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", [pytest.param(each, id=each.name) for each in CHOSEN])
def test_interpreters_end(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path, score: Score
) -> None:
    """Waits, listeners, callbacks and coroutines are open, in this process and in a fork of it."""
    url = service.find(request, tmp_path)
    environment = os.environ | {
        "UPSHOT_BROKER_URL": url if service.broker else f"sqlite:///{tmp_path}/broker.db",
        "UPSHOT_RESULT_BACKEND": "rpc://" if service.name == "rpc" else url,
        "UPSHOT_NO_WORKER_WARNING": "none",
    }

    def leave(way: str, *options: str) -> tuple[str, float, int | None, str]:
        process = subprocess.Popen(
            [*AS_IN_FRONT, sys.executable, str(PROGRAM), way, *options],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        began = clock.monotonic()
        try:
            rest, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            rest, _ = process.communicate()
            return way, clock.monotonic() - began, None, first + rest
        return way, clock.monotonic() - began, process.returncode, first + rest

    with ThreadPoolExecutor(4) as pool:
        idle = pool.submit(leave, "fall_off", "closed")
        ends = list(pool.map(leave, WAYS))
    machine = idle.result()[1]  # what the end of any interpreter takes here and now

    for way, seconds, code, said in ends:
        score.executed += 1
        if code is None or (FULL and seconds > SOON + OWN + 2 * machine):
            score.hung += 1
            score.surprise(f"{way} took {seconds:.1f} s: {said}")
        elif code or said != "READY\n":
            score.surprise(f"{way} ended with {code} and said {said}")
        else:
            score.recorded += 1
    score.submitted = len(ends)
    slowest = max(seconds for _, seconds, _, _ in ends)
    score.remark(f"gone in {slowest:.2f} s at most, {machine:.2f} s with nothing open")
    score.judge()
