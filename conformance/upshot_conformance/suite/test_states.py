"""States: what is kept, what may follow what, who wins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError
from upshot.record import Payload, Record
from upshot.states import State, is_terminal
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    TERMINAL,
    ended,
    failure,
    new_id,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.suite.expect import loaded
from upshot_conformance.timing import Timing

UNFINISHED = (State.QUEUED, State.STARTED, State.RETRY, "PROGRESS", "UPLOADING_2")


@clause("ST-1")
@pytest.mark.parametrize("state", TERMINAL)
def test_a_terminal_record_comes_back_as_it_was_stored(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, state: str
) -> None:
    record = ended(new_id(), state)

    applied = client.store(record)

    assert applied
    assert second_client.load(record.task_id) == record
    assert second_client.load_many([record.task_id]) == [record]
    assert second_client.wait(record.task_id, timeout=0) == record
    assert handle(record.task_id).state == state


@clause("ST-1")
def test_every_field_of_a_record_is_kept(client: ResultClient, second_client: ResultClient) -> None:
    record = Record(
        task_id=new_id(),
        state=State.SUCCESS,
        attempt=3,
        name="app.tasks.add",
        queue="q:1",
        worker="w@host-1",
        token="t" * 64,
        queued_at=1.25,
        started_at=1700000000.123456,
        finished_at=1e10,
        info=Payload("json", b'{"a": 1}'),
        outcome=Payload("x-any", bytes(range(256))),
    )

    client.store(record)

    assert second_client.load(record.task_id) == record


@clause("ST-1")
@pytest.mark.needs("intermediate", probe=True)
@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_state_is_kept_and_ends_no_wait(
    client: ResultClient, second_client: ResultClient, quiet: float, state: str
) -> None:
    record = unfinished(new_id(), state)

    applied = client.store(record)

    assert applied
    assert second_client.load(record.task_id) == record
    assert not is_terminal(state)
    with pytest.raises(ResultTimeoutError):
        second_client.wait(record.task_id, timeout=quiet)


@clause("ST-1")
@pytest.mark.lacks("intermediate")
@pytest.mark.parametrize("state", UNFINISHED)
def test_a_state_that_need_not_be_kept_reads_as_pending_or_as_stored(
    client: ResultClient, handle: MakeHandle, state: str
) -> None:
    record = unfinished(new_id(), state)

    client.store(record)

    assert client.load(record.task_id) in (None, record)
    assert handle(record.task_id).state in (State.PENDING, state)


@clause("ST-2")
@pytest.mark.parametrize("late", UNFINISHED)
@pytest.mark.parametrize("first", TERMINAL)
def test_nothing_unfinished_follows_a_terminal_record(
    client: ResultClient, second_client: ResultClient, first: str, late: str
) -> None:
    record = ended(new_id(), first)
    client.store(record)

    applied = [
        second_client.store(unfinished(record.task_id, late, attempt=attempt))
        for attempt in (1, 2, 1000)
    ]

    assert applied == [False, False, False]
    assert client.load(record.task_id) == record
    assert second_client.load(record.task_id) == record


@clause("ST-2")
@pytest.mark.needs("expiry_resolution")
def test_a_late_record_does_not_touch_the_expiry(
    client: ResultClient, harness: Harness, namespace: str, timing: Timing
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1), expires=100)
    before = {name: harness.ttl(name) for name in harness.raw_objects(namespace)}

    client.store(unfinished(task_id), expires=1000)
    client.store(success(task_id, 2), expires=None)

    after = {name: harness.ttl(name) for name in harness.raw_objects(namespace)}
    assert before
    assert after.keys() == before.keys()
    assert all(left is not None and 0 < left <= 100 + timing.jitter for left in after.values())


@clause("ST-3")
@pytest.mark.parametrize("second", TERMINAL)
@pytest.mark.parametrize("first", TERMINAL)
def test_the_first_terminal_record_wins(
    client: ResultClient, second_client: ResultClient, first: str, second: str
) -> None:
    task_id = new_id()
    record, late = ended(task_id, first), ended(task_id, second, attempt=2)
    client.store(record)

    applied = [second_client.store(late), client.store(late), client.store(late)]

    assert applied == [False, False, False]
    assert client.load(task_id) == record
    assert second_client.load(task_id) == record


@clause("ST-3")
@pytest.mark.parametrize("first", TERMINAL)
def test_the_first_end_of_a_task_that_ran_wins(
    client: ResultClient, second_client: ResultClient, first: str
) -> None:
    task_id = new_id()
    for state in (State.QUEUED, State.STARTED, "PROGRESS", State.RETRY):
        client.store(unfinished(task_id, state))
    client.store(unfinished(task_id, attempt=2))
    record = ended(task_id, first, attempt=2)
    assert client.store(record)

    applied = [second_client.store(ended(task_id, late, attempt=3)) for late in TERMINAL]

    assert applied == [False, False, False]
    assert client.load(task_id) == record


@clause("ST-3")
@pytest.mark.parametrize("state", TERMINAL)
def test_the_same_record_stored_again_is_not_applied(client: ResultClient, state: str) -> None:
    record = ended(new_id(), state)

    applied = [*client.store_many([record, record]), client.store(record)]

    assert applied == [True, False, False]
    assert client.load(record.task_id) == record


@clause("ST-3")
def test_the_first_of_a_batch_wins(client: ResultClient) -> None:
    task_id, other = new_id(), new_id()

    applied = client.store_many(
        [success(task_id, "first"), success(other, 0), failure(task_id, ValueError("second"))]
    )

    assert applied == [True, True, False]
    assert value_of(client.load(task_id)) == "first"


@clause("ST-5")
@pytest.mark.needs("atomic")
@pytest.mark.needs("intermediate")
@pytest.mark.parametrize(
    "late",
    [
        partial(unfinished, state=State.QUEUED),
        partial(unfinished, state=State.STARTED),
        partial(unfinished, state=State.RETRY),
        partial(success, value="old"),
        partial(failure, exc=ValueError("old")),
    ],
    ids=["QUEUED", "STARTED", "RETRY", "SUCCESS", "FAILURE"],
)
def test_an_older_attempt_does_not_replace_a_newer_one(
    client: ResultClient, second_client: ResultClient, late: Callable[..., Record]
) -> None:
    current = unfinished(new_id(), attempt=2)
    client.store(unfinished(current.task_id, attempt=1))
    client.store(current)

    applied = second_client.store(late(current.task_id, attempt=1))

    assert not applied
    assert client.load(current.task_id) == current


@clause("ST-5")
@pytest.mark.needs("atomic")
@pytest.mark.needs("intermediate")
def test_attempts_follow_each_other_to_the_end(client: ResultClient) -> None:
    task_id = new_id()
    life = [
        unfinished(task_id, State.QUEUED),
        unfinished(task_id, State.STARTED),
        unfinished(task_id, "PROGRESS"),
        unfinished(task_id, State.RETRY),
        unfinished(task_id, State.STARTED, attempt=2),
        unfinished(task_id, State.RETRY, attempt=2),
        unfinished(task_id, State.STARTED, attempt=3),
        success(task_id, "done", attempt=3),
    ]

    for record in life:
        assert client.store(record), f"{record.state} of attempt {record.attempt} was not applied"
        assert client.load(task_id) == record


@clause("ST-6")
@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILURE])
def test_revoking_an_ended_task_changes_nothing(
    client: ResultClient, handle: MakeHandle, state: str
) -> None:
    record = ended(new_id(), state)
    client.store(record)

    revoked_it = handle(record.task_id).revoke()

    assert not revoked_it
    assert client.load(record.task_id) == record


@clause("ST-6")
@pytest.mark.parametrize("running", UNFINISHED)
def test_a_task_that_has_not_ended_can_be_revoked_for_good(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, running: str
) -> None:
    task_id = new_id()
    client.store(unfinished(task_id, running, attempt=7))

    assert handle(task_id).revoke()

    assert not second_client.store(unfinished(task_id, attempt=8))
    assert not second_client.store(success(task_id, "too late", attempt=8))
    assert loaded(client, task_id).state == State.REVOKED


@clause("ST-6")
@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILURE])
def test_an_end_after_a_revocation_is_ignored(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, state: str
) -> None:
    task_id = new_id()
    assert handle(task_id).revoke()

    applied = second_client.store(ended(task_id, state, attempt=5))

    assert not applied
    assert loaded(client, task_id).state == State.REVOKED
    assert handle(task_id).state == State.REVOKED
