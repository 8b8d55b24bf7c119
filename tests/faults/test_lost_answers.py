"""Answers that are lost, cut short, or late: nothing is repeated, and nobody gets another's."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import SERVICES, Service
from upshot import App, State, clock
from upshot.client import ResultClient
from upshot.errors import ServiceError, ServiceUnavailableError
from upshot.registry import backend_class
from upshot.request import Request
from upshot.result import AsyncResult
from upshot.spec import TaskSpec
from upshot.url import Url
from upshot_conformance.concurrency import start
from upshot_conformance.proxies import Proxies
from upshot_conformance.records import success, value_of

from .conftest import Sized, every
from .ledger import Ledger
from .scoreboard import Score

CARRIERS = {"redis": "", "postgresql": "", "mariadb": "", "rpc": "rpc://"}
"""The services that carry tasks over the network, each with where their results go."""

BATCH = 5  # tasks that are sent in one call
LONGEST = 400  # bytes: more than any answer with one record here has
BRIEFLY = 0.25  # seconds that a call may take whose answer comes later

SLOW = frozenset({"mongo", "mongo-standalone"})
"""Their driver tries a server again half a second after it failed."""

NETWORKED = every(each for each in SERVICES if each.server)


@contextlib.contextmanager
def through_proxies(service: Service, url: str) -> Generator[Proxies]:
    """Put proxies before every server of a service."""
    with closing(service.harness(url)) as harness, Proxies(url, harness) as proxies:
        yield proxies


@pytest.fixture(params=[each for each in SERVICES if each.name in CARRIERS], ids=lambda s: s.name)
def carrier(request: pytest.FixtureRequest) -> Service:
    """Each broker that is reached over a network."""
    chosen: Service = request.param
    return chosen


@pytest.fixture
def service_url(carrier: Service, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the worker finds the broker, without any fault."""
    return carrier.find(request, tmp_path)


class Sent(NamedTuple):
    """What became of one call that sent tasks.

    Attributes:
        handles: of the tasks.
        errors: how often the caller saw an error, and sent them again under their ids.
    """

    handles: list[AsyncResult[Any]]
    errors: int


def sent(app: App, values: list[str]) -> Sent:
    """Send a task for each value, in one call, as often as it takes."""
    spec = TaskSpec(name="jobs.echo", function=print)
    requests = [Request(name=spec.name, spec=spec, args=[value]) for value in values]
    errors = 0
    while True:
        try:
            return Sent(app.send(requests), errors)
        except ServiceUnavailableError as exc:
            errors += 1
            requests = [  # strict: an error that does not name all of them ends the experiment
                replace(request, task_id=task_id)
                for request, task_id in zip(requests, exc.task_ids, strict=True)
            ]


@pytest.mark.experiment(6)
@pytest.mark.timeout(400)
def test_answers_to_submissions_are_lost(
    project: Path,
    carrier: Service,
    service_url: str,
    ledger: Ledger,
    score: Score,
    start_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    sized: Sized,
    dice: random.Random,
) -> None:
    results = CARRIERS[carrier.name] or service_url
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", results)
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")  # no attempt may be lost to a busy machine
    start_worker("-c", "1", "--threads", "4")
    losses, sends = sized(250, 15), 0
    with through_proxies(carrier, service_url) as proxies:
        through = CARRIERS[carrier.name] or proxies.text
        with App(broker=proxies.text, backend=through, operation_timeout=PATIENCE) as app:
            awaited: dict[str, AsyncResult[Any]] = {}
            first = sent(app, ["first"]).handles[0]
            assert first.get(timeout=PATIENCE) == "first"
            armed = seen = 0
            while proxies.dropped < losses and sends < 20 * losses:
                if proxies.dropped >= armed:  # the last one was lost
                    armed = proxies.dropped + 1  # counted before: the next may be lost at once
                    proxies.lose_answer(after=dice.randrange(3))
                count = BATCH if dice.random() < 0.1 else 1
                values = [f"{sends}-{n}" for n in range(count)]
                sends += 1
                handles, errors = sent(app, values)
                awaited |= dict(zip(values, handles, strict=True))
                seen += errors
            proxies.heal()
            score.submitted = len(awaited) + 1
            score.recorded = 1
            for value, handle in awaited.items():
                found = handle.get(timeout=PATIENCE)
                if found == value:
                    score.recorded += 1
                else:
                    score.surprise(f"{value} got the answer of {found}")
            score.lost = score.submitted - score.recorded - len(score.surprises)
            score.executed, score.duplicated = sum(ledger.runs().values()), ledger.repeated()
            score.remark(f"{proxies.dropped} answers lost, {seen} errors seen")
            if proxies.dropped < losses:
                score.surprise(f"only {proxies.dropped} answers were lost")
    score.judge()


@pytest.fixture(params=NETWORKED)
def networked(request: pytest.FixtureRequest) -> Service:
    """Each service that is reached over a network."""
    chosen: Service = request.param
    return chosen


@pytest.fixture
def proxies(
    networked: Service, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Proxies]:
    """Faults between the clients and that service."""
    with through_proxies(networked, networked.find(request, tmp_path)) as opened:
        yield opened


def client_of(url: str, *, namespace: str, timeout: float) -> ResultClient:
    """Open a client."""
    parsed = Url.parse(url)
    make = backend_class(parsed)
    return ResultClient(lambda: make(parsed), url=parsed, namespace=namespace, timeout=timeout)


@pytest.mark.experiment(6)
@pytest.mark.timeout(400)
def test_answers_to_everything_else_are_lost(
    proxies: Proxies, networked: Service, score: Score, sized: Sized, dice: random.Random
) -> None:
    """Storing, reading, forgetting: done once, and said to be done."""
    with client_of(proxies.text, namespace=uuid.uuid4().hex[:8], timeout=PATIENCE) as client:
        reply_to = client.backend.reply_to
        client.store(success("first", "first"), reply_to=reply_to)
        for n in range(sized(12, 2) if networked.name in SLOW else sized(60, 6)):
            task_id = f"id-{n}"
            proxies.lose_answer(after=dice.randrange(2))
            if not client.store(success(task_id, task_id), reply_to=reply_to):
                score.surprise(f"{task_id}: its own record stood in the way")
            if client.store(success(task_id, "another"), reply_to=reply_to):
                score.surprise(f"{task_id} ended twice")
            proxies.lose_answer()
            score.recorded += value_of(client.load(task_id)) == task_id
            proxies.lose_answer(after=dice.randrange(2))
            client.forget([task_id])
            if client.load(task_id) is not None:
                score.surprise(f"{task_id} was not forgotten")
            score.submitted += 1
        score.executed = score.submitted
        score.lost = score.submitted - score.recorded
        if value_of(client.load("first")) != "first":
            score.surprise("another record was changed")
        score.remark(f"{proxies.dropped} answers lost")
        proxies.heal()
    score.judge()


@pytest.mark.experiment(6)
@pytest.mark.timeout(400)
def test_revocations_whose_answers_are_lost(
    carrier: Service, service_url: str, score: Score, sized: Sized
) -> None:
    with through_proxies(carrier, service_url) as proxies:
        backend = CARRIERS[carrier.name] or proxies.text
        name = f"test-{uuid.uuid4().hex[:8]}"
        with App(
            broker=proxies.text, backend=backend, namespace=name, operation_timeout=PATIENCE
        ) as app:
            for _ in range(sized(30, 4)):
                handle = app.send_task("jobs.echo", [1])
                proxies.lose_answer()
                if not handle.revoke():
                    score.surprise("its own revocation stood in the way")
                proxies.heal()
                score.submitted += 1
                score.recorded += handle.state == State.REVOKED
            app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))
    score.lost = score.submitted - score.recorded
    score.judge()


@pytest.mark.experiment(6)
@pytest.mark.timeout(400)
def test_answers_end_after_any_byte(
    proxies: Proxies, networked: Service, score: Score, sized: Sized, dice: random.Random
) -> None:
    """Half an answer is none: it is asked for again, and what is asked next gets its own."""
    with client_of(proxies.text, namespace=uuid.uuid4().hex[:8], timeout=PATIENCE) as client:
        reply_to = client.backend.reply_to
        ids = [f"id-{n}" for n in range(5)]
        ends = [success(task_id, task_id) for task_id in ids]
        client.store_encoded([client.encode(end, reply_to=reply_to) for end in ends])
        count = sized(12, 3) if networked.name in SLOW else sized(LONGEST // 4, 8)
        for length in dice.sample(range(LONGEST), count):
            task_id, other, new = *dice.sample(ids, 2), f"new-{length}"
            proxies.cut_short(after=length)
            for each in (task_id, other):
                score.submitted += 1
                found = value_of(client.load(each))
                if found == each:
                    score.recorded += 1
                else:
                    score.surprise(f"{each} got the answer of {found} after {length} bytes")
            proxies.cut_short(after=length)
            if not client.store(success(new, new), reply_to=reply_to):
                score.surprise(f"{new}: its own record stood in the way")
            if value_of(client.load(new)) != new:
                score.surprise(f"{new} is not what was stored")
            proxies.heal()
        score.executed = score.submitted
        score.remark(f"{proxies.dropped} answers cut short")
    score.judge()


@pytest.mark.experiment(6)
@pytest.mark.timeout(400)
def test_late_answers_are_nobodys(
    proxies: Proxies, networked: Service, score: Score, sized: Sized
) -> None:
    """A call gives up, its answer comes, and others use the same client meanwhile."""
    name, threads = uuid.uuid4().hex[:8], 4
    ids = [f"id-{n}" for n in range(threads * 5)]
    with (
        client_of(proxies.direct, namespace=name, timeout=PATIENCE) as direct,
        client_of(proxies.text, namespace=name, timeout=BRIEFLY) as client,
    ):
        stored = client if client.backend.reply_to else direct
        reply_to = client.backend.reply_to
        with contextlib.suppress(ServiceUnavailableError):  # a busy machine is slow, too
            client.load(ids[0])
        comes_to(
            lambda: patiently(
                lambda: (
                    stored.store_encoded(
                        [stored.encode(success(each, each), reply_to=reply_to) for each in ids]
                    )
                    and True
                )
            ),
            True,
        )

        def reads(mine: list[str]) -> None:
            for task_id in mine:
                score.submitted += 1
                try:
                    found = client.load(task_id)
                except ServiceUnavailableError:
                    continue
                score.executed += 1
                if value_of(found) == task_id:
                    score.recorded += 1
                else:
                    score.surprise(f"{task_id} got the answer of {value_of(found)}")

        for _ in range(sized(6, 2)):
            proxies.hold()
            held = [start(partial(reads, ids[n : n + 1])) for n in range(threads)]
            for each in held:
                each.result(2 * PATIENCE)
            proxies.heal()
            reads(ids[threads : 2 * threads])
            proxies.delay(BRIEFLY)  # each answer comes when its caller is about to leave
            late = [start(partial(reads, ids[n::threads][:2])) for n in range(threads)]
            for each in late:
                each.result(2 * PATIENCE)
            proxies.heal()
            reads(ids)
    score.judge()


def patiently(call: Callable[[], Any]) -> Any:
    """Return what the call returns; None if the service is away for now."""
    try:
        return call()
    except ServiceError:
        clock.sleep(0.05)
        return None
