"""Writers that race for the same ids: whoever saw how a task ended sees nothing else after."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES, Service
from upshot import states
from upshot_conformance.concurrency import start

from .conftest import Sized, every
from .programs.racing import PER_ID, Order, Sighting, end_all, race
from .scoreboard import Score

PROGRAM = Path(__file__).parent / "programs" / "racing.py"
THREADS = 4  # each with a client of its own, but for two that share one


def surprises(seen: Sequence[Sighting], visibility: float) -> list[str]:
    """Return what cannot be, if a terminal state is terminal.

    Args:
        seen: what everybody saw, in any order.
        visibility: seconds until every reader sees a finished write.
    """
    found: list[str] = []
    by_id: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in seen:
        by_id[sighting.task_id].append(sighting)
    for task_id, sightings in by_id.items():
        ends = [each for each in sightings if states.is_terminal(each.state)]
        if len({each.digest for each in ends}) > 1:
            found.append(f"{task_id} ended as {sorted({each.state for each in ends})}: two ends")
        won = [each for each in ends if not each.is_read]
        if len(won) > 1:
            found.append(f"{task_id}: {len(won)} writers were told that they ended it")
        first = min((each.ended for each in ends), default=float("inf"))
        after = [each for each in sightings if each.began > first + visibility]
        for late in (each for each in after if not states.is_terminal(each.state)):
            what = "was read" if late.is_read else "was written"
            found.append(f"{task_id} had ended, and {late.state or 'nothing'} {what}")
    return found


@pytest.mark.experiment(6)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", every(SERVICES))
def test_writers_race(
    service: Service,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    score: Score,
    dice: random.Random,
    sized: Sized,
) -> None:
    url = service.find(request, tmp_path)
    namespace = f"race-{dice.randrange(2**32):x}"
    order = Order(url, namespace, reply_to="", name="", seed=0, ids=[])
    with order.client() as owner, order.client() as other:
        order = replace(order, reply_to=owner.backend.reply_to)
        processes = sized(2, 1) if owner.capabilities.shared or order.reply_to else 0
        racers = THREADS + processes
        ids = [f"id-{n}" for n in range(-(-sized(10_000, 300) // (racers * PER_ID)))]
        orders = [
            replace(order, ids=ids, name=f"racer {n}", seed=dice.randrange(2**32))
            for n in range(racers)
        ]
        children = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        told = [
            start(partial(child.communicate, json.dumps(asdict(order))))
            for child, order in zip(children, orders[THREADS:], strict=True)
        ]
        threads = [
            start(partial(race, client, order))
            for client, order in zip((owner, owner, owner, other), orders, strict=False)
        ]

        seen = [sighting for thread in threads for sighting in thread.result(4 * PATIENCE)]
        for text in told:
            seen += [Sighting(*sighting) for sighting in json.loads(text.result(PATIENCE)[0])]
        # Whatever stands there that is no end lets this end pass, and no end does.
        last = replace(order, name="the last", ids=ids)
        seen += end_all(owner, last)

        score.submitted = racers * len(ids) * PER_ID
        score.executed = sum(not each.is_read for each in seen)
        score.recorded = len({s.task_id for s in seen if states.is_terminal(s.state)})
        score.lost = sum(not states.is_terminal(each.state) for each in seen[-len(ids) :])
        for what in surprises(seen, owner.capabilities.visibility):
            score.surprise(what)
        score.remark(f"{sum(each.is_read for each in seen)} readings")
        owner.forget(ids)
    score.judge()
