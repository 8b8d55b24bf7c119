"""Soft time limits that strike while a task speaks to a service: no driver is broken by them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES, Service
from upshot import App
from upshot.errors import SoftTimeLimitExceededError

from .conftest import Sized
from .ledger import Ledger
from .scoreboard import Score

WORST = frozenset({"redis", "mongo"})
"""Their drivers are broken most by an exception from nowhere: one crashes, one keeps a lock."""

STORES = [
    pytest.param(each, id=each.name, marks=() if each.name in WORST else pytest.mark.wide)
    for each in SERVICES
    if each.server and each.name != "rpc"
]


@pytest.fixture
def service_url(tmp_path: Path) -> str:
    """The broker, which is not what is tried here."""
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.mark.experiment(9)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("store", STORES)
def test_limits_strike_in_calls(
    store: Service,
    threads: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_worker: Callable[..., Any],
    ledger: Ledger,
    score: Score,
    sized: Sized,
    dice: random.Random,
) -> None:
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", store.find(request, tmp_path))
    worker = start_worker("-c", "1", "--threads", threads)
    with App() as app:
        limits = [dice.uniform(0.003, 0.02) for _ in range(sized(400, 60))]
        handles = [app.send_task("jobs.report_for_ever", soft_time_limit=limit) for limit in limits]
        for handle in handles:
            error = handle.exception(timeout=PATIENCE)
            score.recorded += isinstance(error, SoftTimeLimitExceededError)
            if not isinstance(error, SoftTimeLimitExceededError):
                score.surprise(f"{error!r}")
        if app.send_task("jobs.echo", ["well"]).get(timeout=PATIENCE) != "well":
            score.surprise("nothing runs afterwards")
    score.submitted = len(handles)
    score.executed = sum(ledger.runs().values()) - 1
    score.duplicated, score.lost = ledger.repeated(), score.submitted - score.recorded
    if "replacing it" in worker.output():
        score.surprise("a process died")
    score.judge()
