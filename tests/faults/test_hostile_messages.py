"""Messages that somebody else wrote: none stops a worker, runs code or forges a line of its log."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import App
from upshot.broker import Action, Broker, QueuedMessage, Settlement
from upshot.errors import ConfigError
from upshot.registry import broker_class
from upshot.states import is_terminal
from upshot.url import Url

from .conftest import Sized
from .generated import generated_message
from .growth import peak_of
from .hostility import FORBIDDEN_NAMES, ODD_NAMES, flaws_of, hostile_messages
from .scoreboard import Score

BROKERS = [
    pytest.param(
        each, id=each.broker, marks=[] if each.broker in ("sqlite", "redis") else pytest.mark.wide
    )
    for each in SERVICES
    if each.broker
]
"""All in full; otherwise the two that start quickly."""
LEASE = 30.0  # seconds; nothing here outlasts it
GROWTH = 64  # MiB that a worker may grow by


@pytest.fixture(params=BROKERS)
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the messages are."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.mark.experiment(11)
@pytest.mark.timeout(240)
def test_hostile_messages_stop_no_worker(
    project: Path,
    app: App,
    service_url: str,
    start_worker: Callable[..., Any],
    score: Score,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = project / "canary"
    results = f"sqlite:///{project}/results.db"
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", results)
    worker = start_worker("-c", "1")
    with App() as caller:
        assert caller.send_task("jobs.echo", ["first"]).get(timeout=PATIENCE) == "first"
        (child,) = worker.children()
        before = peak_of(child)

        named = dict(hostile_messages("any", canary))
        ids = {f"victim-{number}": what for number, what in enumerate(named)}
        bodies = [dict(hostile_messages(task_id, canary))[what] for task_id, what in ids.items()]
        parcels = [
            QueuedMessage(message_id=f"{task_id}/1", queue="default", body=body)
            for task_id, body in zip(ids, bodies, strict=True)
        ]
        caller.broker.call(lambda broker, seconds: broker.publish(parcels, (), seconds))
        after = [caller.send_task("jobs.echo", [number]) for number in range(20)]

        assert [handle.get(timeout=PATIENCE) for handle in after] == list(range(20))
        comes_to(lambda: is_idle(caller), True)
        score.submitted = len(parcels) + len(after)
        score.executed = score.submitted
        for task_id, what in ids.items():
            record = caller.results.load(task_id)
            if record is None or is_terminal(record.state):
                score.recorded += 1
            else:
                score.surprise(f"{what}: left as {record.state}")
        if worker.children() != [child]:
            score.surprise("a process of the worker had to be replaced")
        growth = (peak_of(child) - before) / 1024
        if growth > GROWTH:
            score.surprise(f"the worker grew by {growth:.0f} MiB")
    code = worker.stop()
    log = worker.output()
    for flaw in flaws_of(log):
        score.surprise(f"{flaw}: {forged_line(log)!r:.300}")
    if code:
        score.surprise(f"the worker ended with {code}")
    if canary.exists():
        score.surprise("code in a message was run")
    score.recorded += len(after)
    score.remark(f"the worker grew by {growth:.1f} MiB")
    score.judge()


@pytest.mark.experiment(11)
@pytest.mark.timeout(400)
def test_generated_messages_stop_no_worker(
    project: Path,
    app: App,
    service_url: str,
    start_worker: Callable[..., Any],
    score: Score,
    dice: random.Random,
    sized: Sized,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", f"sqlite:///{project}/results.db")
    worker = start_worker("-c", "1")
    with App() as caller:
        assert caller.send_task("jobs.echo", ["first"]).get(timeout=PATIENCE) == "first"
        (child,) = worker.children()
        before = peak_of(child)
        for number in range(sized(10_000, 500)):
            body = generated_message(dice, f"g{number}")
            parcel = QueuedMessage(message_id=f"g{number}/1", queue="default", body=body)
            caller.broker.call(partial(publish, parcel))
            score.submitted += 1
        assert caller.send_task("jobs.echo", ["last"]).get(timeout=300) == "last"
        comes_to(lambda: is_idle(caller), True)
        score.executed = score.recorded = score.submitted
        if worker.children() != [child]:
            score.surprise("a process of the worker had to be replaced")
        growth = (peak_of(child) - before) / 1024
        if growth > GROWTH:
            score.surprise(f"the worker grew by {growth:.0f} MiB")
    if code := worker.stop():
        score.surprise(f"the worker ended with {code}")
    for flaw in flaws_of(worker.output()):
        score.surprise(f"{flaw}: {forged_line(worker.output())!r:.300}")
    score.remark(f"the worker grew by {growth:.1f} MiB")
    score.judge()


def publish(parcel: QueuedMessage, broker: Broker, seconds: float) -> None:
    broker.publish([parcel], (), seconds)


def forged_line(log: str) -> str:
    """Return the first line of a log that shows what must not be there."""
    found = re.search(r"^.*(FORGED|[^\n\x20-\x7e]|Traceback).*$", log, re.MULTILINE)
    return log[found.start() : found.start() + 300] if found else ""


def is_idle(app: App) -> bool:
    """Tell whether no message waits, and none is at a worker."""
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    return not (status["default"].ready or status["default"].leased)


@pytest.fixture
def open_broker(service_url: str) -> Iterator[Callable[[str], Broker]]:
    """Opens the service in a namespace."""
    opened: list[Broker] = []

    def open_one(namespace: str) -> Broker:
        url = Url.parse(service_url)
        opened.append(broker_class(url)(url, namespace))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


def fetch(broker: Broker, *queues: str) -> list[bytes]:
    """Take and settle all that is due."""
    bodies: list[bytes] = []
    while deliveries := broker.fetch(queues, limit=100, wait=0, lease=LEASE, worker="\x1b[31m{}*"):
        bodies += [each.body for each in deliveries]
        broker.settle([Settlement(delivery=e, action=Action.ACK) for e in deliveries], 20)
    return sorted(bodies)


@pytest.mark.experiment(11)
@pytest.mark.timeout(240)
def test_odd_names_of_queues_and_messages_are_nothing_but_names(
    open_broker: Callable[[str], Broker], score: Score
) -> None:
    namespace = f"odd-{uuid.uuid4().hex[:8]}"
    broker, bystander = open_broker(namespace), open_broker(namespace + "*")
    names = [name for name in ODD_NAMES if len(name.encode()) <= 255]
    other = QueuedMessage(message_id="x", queue="default", body=b"bystander")
    bystander.publish([other], (), 20)

    for name in names:
        parcels = [
            QueuedMessage(message_id=f"{name}/{number}", queue=name, body=name.encode())
            for number in range(2)
        ]
        broker.publish(parcels, (), 20)
    status = broker.survey(names, 20)
    for name in names:
        score.submitted += 2
        found = fetch(broker, name)
        score.executed += len(found)
        if found == [name.encode()] * 2 and status[name].ready == 2:
            score.recorded += 2
        else:
            score.surprise(f"the queue {name!r} held {found!r}, and said {status[name]}")
    broker.publish([QueuedMessage(message_id="y", queue="*", body=b"y")], (), 20)
    assert broker.purge([name for name in names if name != "*"], 20) == 0
    assert fetch(broker, "*") == [b"y"], "a purge took its queues for patterns"
    assert fetch(bystander, "default") == [b"bystander"], "a namespace was seen from another"
    score.judge()


@pytest.mark.experiment(11)
def test_odd_namespaces_do_not_see_each_other(
    open_broker: Callable[[str], Broker], score: Score, sized: Sized
) -> None:
    names = [name[:50] for name in ODD_NAMES[: sized(100, 12)]]
    unique = uuid.uuid4().hex[:8]
    brokers = {name: open_broker(name + unique) for name in dict.fromkeys(names)}

    for name, broker in brokers.items():
        parcel = QueuedMessage(message_id="same", queue="default", body=name.encode())
        broker.publish([parcel], (), 20)
    for name, broker in brokers.items():
        score.submitted += 1
        found = fetch(broker, "default")
        score.executed += len(found)
        score.recorded += found == [name.encode()]
        if found != [name.encode()]:
            score.surprise(f"the namespace {name!r} held {found!r}")
        broker.purge(["default"], 20)
    score.judge()


@pytest.mark.experiment(11)
def test_odd_tasks_ids_and_headers_come_home(score: Score, service_url: str) -> None:
    namespace = f"odd-{uuid.uuid4().hex[:8]}"
    unique = uuid.uuid4().hex[:8]
    results = "rpc://" if service_url.startswith("amqp") else service_url
    with closing(App("odd", broker_url=service_url, result_backend=results,
                     namespace=namespace)) as app:  # fmt: skip
        for name in ODD_NAMES:
            app.task(name=name, bind=True)(lambda context: dict(context.headers))
        with app.running():
            handles = {
                name: app.send_task(name, task_id=(name[:60] + unique), headers={name: name})
                for name in ODD_NAMES
            }
            for name, handle in handles.items():
                score.submitted += 1
                if handle.get(timeout=PATIENCE) == {name: name} and handle.name == name:
                    score.recorded += 1
                else:
                    score.surprise(f"the task {name!r} returned {handle.get()!r}")
        score.executed = len(handles)
        for name in FORBIDDEN_NAMES:
            with pytest.raises(ConfigError):
                app.send_task(name)
            with pytest.raises(ConfigError):
                app.send_task("x", queue=name)
            with pytest.raises((ConfigError, ValueError)):
                app.send_task("x", task_id=name)
    score.judge()
