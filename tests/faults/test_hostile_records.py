"""Records that somebody else wrote: each is an error for its own id, at once, and nothing more."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endtoend.services import SERVICES, Service
from upshot import App, clock
from upshot.client import ResultClient
from upshot.errors import (
    CorruptRecordError,
    RemoteError,
    ResultTimeoutError,
    SerializationError,
    UpshotError,
)
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.records import success
from upshot_conformance.suite.forge import inject_many

from .conftest import Sized, every
from .generated import generated_record
from .growth import peak_of
from .hostility import VALUE_BOMBS, flaws_of, hostile_records, with_canary
from .scoreboard import Score
from .vandals import VANDALS, Deed

EVERY = every(SERVICES)
VANDALISED = every(each for each in SERVICES if each.name in VANDALS)
SECONDS = 2.0
"""What no call on a hostile record may take."""
GROWTH = 64
"""MiB that reading them may take."""


@pytest.fixture
def app(service: Service, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """An app with its results at the service, and a database of its own for its messages."""
    url = service.find(request, tmp_path)
    namespace = f"hostile-{uuid.uuid4().hex[:8]}"
    with App("hostile", broker_url=url if service.name == "rpc" else f"memory://{namespace}",
             result_backend="rpc://" if service.name == "rpc" else url,
             namespace=namespace, accept_content=("json", "msgpack")) as app:  # fmt: skip
        yield app


def check_error(score: Score, what: str, error: object, *names: str) -> None:
    """Count an error as the right answer if it is typed, and says which id and where."""
    if not isinstance(error, UpshotError):
        score.surprise(f"{what}: {error!r}")
    elif isinstance(error, ResultTimeoutError):
        score.hung += 1
        score.surprise(f"{what}: it was waited for to the end of the timeout")
    elif missing := [name for name in names if name not in str(error)]:
        score.surprise(f"{what}: the error does not name {missing}: {error}")
    elif flaws := [*flaws_of(str(error))]:
        score.surprise(f"{what}: {flaws}")
    else:
        score.recorded += 1


@pytest.mark.experiment(11)
@pytest.mark.parametrize("service", EVERY)
def test_hostile_records_are_errors_of_their_own_ids(
    app: App, service: Service, score: Score, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    client = app.results
    named = {
        f"victim-{number}": what
        for number, (what, _) in enumerate(hostile_records("victim", canary))
    }
    bodies = {
        task_id: next(body for what, body in hostile_records(task_id, canary) if what == named_one)
        for task_id, named_one in named.items()
    }
    client.store(success("bystander", 1))
    inject_many(client, bodies)

    began = clock.monotonic()
    loaded = client.load_many([*bodies, "bystander"])
    waited = dict(client.wait_many([*bodies, "bystander"], timeout=60))
    seconds = clock.monotonic() - began

    for task_id, found in zip(bodies, loaded, strict=False):
        score.submitted += 1
        score.executed += 1
        check_error(score, named[task_id], found, task_id, str(client.url))
        check_error(score, f"{named[task_id]}, waited for", waited[task_id], task_id)
    assert isinstance(loaded[-1], Record), "the one beside them cannot be read any more"
    assert isinstance(waited["bystander"], Record)
    first = next(iter(bodies))
    with pytest.raises(CorruptRecordError):
        app.AsyncResult(first).get(timeout=60)
    client.forget(bodies)
    assert client.load_many([*bodies]) == [None] * len(bodies)
    assert not canary.exists(), "the data was obeyed"
    score.remark(f"{seconds * 1000:.0f} ms for all of them, twice")
    score.judge()


@pytest.mark.experiment(11)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("service", EVERY)
def test_generated_records_are_read_or_refused(
    app: App, score: Score, dice: random.Random, sized: Sized
) -> None:
    client, many, batch = app.results, sized(10_000, 500), 250
    before, slowest = peak_of(os.getpid()), 0.0
    for start in range(0, many, batch):
        bodies = {f"g{number}": generated_record(dice, f"g{number}") for number in range(batch)}
        client.store(success("bystander", start))
        inject_many(client, bodies)
        began = clock.monotonic()
        loaded = client.load_many([*bodies, "bystander"])
        slowest = max(slowest, clock.monotonic() - began)
        assert isinstance(loaded[-1], Record), "the one beside them cannot be read any more"
        for (task_id, body), found in zip(bodies.items(), loaded, strict=False):
            score.submitted += 1
            if not isinstance(found, Record):
                check_error(score, repr(body), found, task_id)
                continue
            began = clock.monotonic()
            try:
                app.AsyncResult(task_id).get(timeout=0, propagate=False)
            except UpshotError:
                pass  # what is in the record cannot be read
            except Exception as exc:
                score.surprise(f"{body!r}: {exc!r}")
            score.recorded += 1
            slowest = max(slowest, clock.monotonic() - began)
        score.executed += len(bodies)
        client.forget([*bodies, "bystander"])
    score.hung += slowest > SECONDS
    growth = (peak_of(os.getpid()) - before) / 1024
    if growth > GROWTH:
        score.surprise(f"reading took {growth:.0f} MiB")
    score.remark(f"{batch} at once in {slowest * 1000:.0f} ms at most, +{growth:.0f} MiB")
    score.judge()


@pytest.mark.experiment(11)
@pytest.mark.parametrize("service", EVERY)
def test_values_that_unfold_or_run_are_refused(
    app: App, service: Service, score: Score, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    bombs = VALUE_BOMBS | {
        what: (kind, data)
        for kind in ("pickle", "json", "application/x-python-serialize")
        for what, data in {f"{how} as {kind}": d for how, d in with_canary(canary).items()}.items()
    }
    for what, (kind, data) in bombs.items():
        for state in (State.SUCCESS, State.FAILURE):
            task_id = f"bomb-{score.submitted}"
            app.results.store(Record(task_id=task_id, state=state, outcome=Payload(kind, data)))
            score.submitted += 1
            began = clock.monotonic()
            try:
                value: object = app.AsyncResult(task_id).get(timeout=60)
            except Exception as exc:
                value = exc
            taken = clock.monotonic() - began
            score.executed += 1
            score.hung += taken > 5 * SECONDS  # the machine may be busy; it is about 5 ms
            if isinstance(value, (SerializationError, RemoteError)) and not [*flaws_of(str(value))]:
                score.recorded += 1
            else:
                score.surprise(f"{what}: {value!r:.200}")
    assert not canary.exists(), "the data was obeyed"
    score.judge()


@pytest.mark.experiment(11)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("service", VANDALISED)
def test_what_a_service_holds_may_be_of_any_type(app: App, service: Service, score: Score) -> None:
    client = app.results
    for number, what in enumerate(dict(vandalism(client, service, "any"))):
        task_id = f"v{number}"
        client.store(Record(task_id=task_id, state=State.QUEUED), expires=60)
        dict(vandalism(client, service, task_id))[what]()
        # Comes behind it, where records travel (QUEUED does not): what was done has come then.
        client.store(Record(task_id=f"{task_id}-behind", state=State.STARTED), expires=60)
        score.submitted += 1
        began = clock.monotonic()
        for call in calls_on(app, task_id):
            try:
                call()
            except UpshotError as exc:
                if flaws := [*flaws_of(str(exc))]:
                    score.surprise(f"{what}: {flaws}")
            except Exception as exc:
                score.surprise(f"{service.name}: {what}: {type(exc).__name__}: {exc}")
        score.hung += clock.monotonic() - began > 10 * SECONDS
        score.executed += 1
        stored = success(task_id, number)._replace(attempt=2)
        if client.store(stored, expires=60) and client.load(task_id) == stored:
            score.recorded += 1
        else:
            score.surprise(f"{service.name}: {what}: nothing can be stored there any more")
    score.judge()


def calls_on(app: App, task_id: str) -> list[Callable[[], object]]:
    """Return all that somebody may do about a task; the last ones remove what is there."""
    client = app.results
    return [
        lambda: client.load(task_id),
        lambda: client.load_many(["other", task_id]),
        lambda: client.wait(task_id, timeout=0),
        lambda: app.AsyncResult(task_id).result,
        lambda: list(client.scan()) if client.capabilities.scan else None,
        lambda: client.forget([task_id]),
        client.prune,
    ]


def vandalism(client: ResultClient, service: Service, task_id: str) -> Iterator[tuple[str, Deed]]:
    """Yield what is done to a task's record, and the deed."""
    key = client.encode(success(task_id, None)).key
    return VANDALS[service.name](client.url, key)
