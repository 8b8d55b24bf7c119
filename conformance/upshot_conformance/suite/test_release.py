"""Release: what is given back, when, and that nothing grows."""

from __future__ import annotations

from functools import partial

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    ResultForgottenError,
    ResultTimeoutError,
)
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import ended, new_id, revoked, success, unfinished, value_of
from upshot_conformance.suite.waits import WAYS_TO_END, EndOfWait
from upshot_conformance.timing import Timing


@clause("RL-1")
@pytest.mark.parametrize("end", WAYS_TO_END)
def test_a_wait_gives_its_slot_back_when_it(
    client: ResultClient, timing: Timing, end: EndOfWait
) -> None:
    for _ in range(3):
        end(client, new_id(), timing)

    timing.eventually(lambda: not client.stats()["keys"])
    stats = client.stats()
    assert (stats["keys"], stats["waiters"]) == (0, 0)


@clause("RL-1")
@pytest.mark.parametrize("end", WAYS_TO_END)
def test_a_wait_gives_its_subscription_back_when_it(
    client: ResultClient, timing: Timing, harness: Harness, namespace: str, end: EndOfWait
) -> None:
    for _ in range(3):
        end(client, new_id(), timing)

    timing.eventually(lambda: not harness.subscriptions(namespace))
    assert harness.subscriptions(namespace) == set()


@clause("RL-1", "RL-4")
def test_forgetting_through_a_client_releases_its_own_callbacks(
    client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    for _ in range(20):
        asked = handle(new_id())
        asked.add_done_callback(id)  # waits without a timeout: only this can end it
        asked.forget()

    timing.eventually(lambda: not client.stats()["waiters"])
    assert client.stats()["waiters"] == 0


@clause("RL-2")
def test_forgetting_leaves_nothing_behind(
    client: ResultClient,
    second_client: ResultClient,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    timing: Timing,
    capabilities: Capabilities,
) -> None:
    size = min(2**20, capabilities.max_record_bytes // 4)
    records = [ended(new_id(), state) for state in ("SUCCESS", "FAILURE", "REVOKED")]
    records += [unfinished(new_id(), state) for state in ("QUEUED", "STARTED", "RETRY", "CUSTOM")]
    records += [success(new_id(), "x" * size), success("x" * 255, 1), success("é a*b:c", 2)]
    awaited = new_id()
    waiting = start(partial(client.wait, awaited, timeout=timing.within))
    timing.eventually(lambda: client.stats()["waiters"])
    client.store_many([*records, success(awaited, 1)])
    waiting.result(timing.within)

    client.forget([record.task_id for record in records])
    handle(awaited).forget()

    assert harness.raw_objects(namespace) == set()
    for each in (client, second_client):
        assert each.load_many([record.task_id for record in records]) == [None] * len(records)
        assert handle(awaited, each).state == State.PENDING


@clause("RL-2")
def test_a_forgotten_id_is_pending_for_every_client(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle
) -> None:
    task_id, other = new_id(), new_id()
    client.store_many([success(task_id, 1), success(other, 2)])
    assert handle(task_id, second_client).get(timeout=0) == 1

    client.forget([task_id])

    assert client.load(task_id) is None
    assert second_client.load(task_id) is None
    assert handle(task_id, second_client).state == State.PENDING
    assert value_of(second_client.load(other)) == 2


@clause("RL-2")
def test_one_client_forgets_all_that_another_stored(
    client: ResultClient, second_client: ResultClient, harness: Harness, namespace: str
) -> None:
    ids = [new_id() for _ in range(250)]
    client.store_many([success(task_id, 1) for task_id in ids])

    second_client.forget(ids)

    assert client.load_many(ids) == [None] * len(ids)
    assert harness.raw_objects(namespace) == set()


@clause("RL-2")
def test_a_forgotten_id_can_be_used_anew(client: ResultClient) -> None:
    task_id = new_id()
    client.store(revoked(task_id))
    client.forget([task_id])

    assert client.store(success(task_id, "again"))
    assert value_of(client.load(task_id)) == "again"


@clause("RL-3")
def test_forgetting_again_and_again_succeeds(client: ResultClient, handle: MakeHandle) -> None:
    done, running, unknown = new_id(), new_id(), new_id()
    client.store_many([success(done, 1), unfinished(running)])

    for _ in range(3):
        client.forget([unknown, done, unknown, running, done])
        assert client.load_many([done, running, unknown]) == [None, None, None]
        handle(done).forget()


@clause("RL-3")
@pytest.mark.needs("expiry_resolution")
def test_forgetting_an_expired_id_succeeds(
    client: ResultClient, timing: Timing, capabilities: Capabilities
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1), expires=0.05)
    patience = timing.within + (capabilities.expiry_resolution or 0.0)

    timing.eventually(lambda: client.load(task_id) is None, within=patience)

    client.forget([task_id])
    assert client.load(task_id) is None


@clause("RL-4")
@pytest.mark.parametrize("before", ["unknown", "running"])
def test_a_wait_for_a_forgotten_id_ends_in_time_and_without_old_data(
    client: ResultClient, second_client: ResultClient, timing: Timing, before: str
) -> None:
    task_id = new_id()
    if before == "running":
        client.store(unfinished(task_id))
    timeout = 2 * timing.quiet
    began = clock.monotonic()
    waiting = start(partial(client.wait, task_id, timeout=timeout))
    timing.eventually(lambda: client.stats()["waiters"] or waiting.done())

    second_client.forget([task_id])

    with pytest.raises((ResultForgottenError, ResultTimeoutError)):
        waiting.result(timing.within)
    assert clock.monotonic() - began <= timeout + max(timing.jitter, 0.5)


@clause("RL-4")
@pytest.mark.needs("expiry_resolution")
def test_a_record_that_comes_after_forgetting_expires(
    client: ResultClient, harness: Harness, namespace: str
) -> None:
    task_id = new_id()
    client.store(unfinished(task_id))
    client.forget([task_id])

    client.store(success(task_id, "too late"))

    names = harness.raw_objects(namespace)
    assert names
    assert [name for name in names if harness.ttl(name) is None] == []
