"""Workers that vanish without a word: what a service keeps of them ends with their leases."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES, Service
from upshot import App, clock
from upshot.broker import Broker

from .conftest import Sized
from .scoreboard import Score

LEASE: Final = 0.5  # seconds of those that vanish
# RabbitMQ's workers leave connections only, and those end with them.
BROKERS: Final = [
    pytest.param(each, id=each.broker) for each in SERVICES if each.broker and each.broker != "amqp"
]


def fetch(app: App, worker: str, lease: float) -> int:
    """Fetch one message as a worker of that name would, and return how many came."""

    def one(broker: Broker, _: float) -> int:
        return len(broker.fetch(["q"], limit=1, wait=0.0, lease=lease, worker=worker))

    return app.broker.call(one)


def beat(app: App) -> None:
    """Give the sign of life of the worker that lives."""
    app.broker.call(
        lambda broker, seconds: broker.beat(
            "the one that lives", ["q"], [], lease=PATIENCE, timeout=seconds
        )
    )


def status(app: App) -> Any:
    """Return what the broker knows of the queue."""
    return app.broker.call(lambda broker, seconds: broker.survey(["q"], seconds))["q"]


@pytest.mark.experiment(10)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", BROKERS)
def test_a_thousand_workers_that_vanish_leave_their_message_and_nothing_else(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path, score: Score, sized: Sized
) -> None:
    url = service.find(request, tmp_path)
    namespace = f"test-{tmp_path.name}"
    count = sized(1000, 60)
    with (
        closing(service.harness(url)) as harness,
        App(broker=url, backend="memory://", namespace=namespace, no_worker_warning=None) as app,
    ):
        app.send_task("jobs.echo", [1], queue="q")
        fetch(app, "the one that lives", PATIENCE)  # with all that a serving worker needs
        before = {name for name in harness.raw_objects("") if "vanishes" not in name}

        for number in range(count):
            fetch(app, f"{number} vanishes", LEASE)
        deadline, left, known = clock.Deadline(PATIENCE), {"not looked yet"}, status(app)
        while (left or len(known.workers) > 1) and not deadline.expired:
            clock.sleep(LEASE)
            beat(app)
            left, known = harness.raw_objects("") - before, status(app)

        score.submitted = score.executed = count
        score.recorded = known.ready + known.leased
        score.lost = 1 - score.recorded
        for name in sorted(left):
            score.surprise(f"left on the service: {name}")
        if len(known.workers) > 1:
            score.surprise(f"{len(known.workers)} workers are believed to live")
        score.judge()
