"""States: what is kept, what may follow what, who wins."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import partial

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError
from upshot.record import Payload, Record
from upshot.states import State, is_terminal
from upshot_conformance import elsewhere
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.expect import loaded
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    TERMINAL,
    ended,
    failure,
    new_id,
    revoked,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.selection import Target
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
def test_a_state_that_cannot_be_kept_reads_as_pending(
    client: ResultClient, handle: MakeHandle, state: str
) -> None:
    task_id = new_id()

    client.store(unfinished(task_id, state))

    assert client.load(task_id) is None
    assert handle(task_id).state == State.PENDING


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
@pytest.mark.parametrize("state", TERMINAL)
def test_the_same_record_stored_again_is_not_applied(client: ResultClient, state: str) -> None:
    record = ended(new_id(), state)

    applied = client.store_many([record, record]) + [client.store(record)]

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


@clause("ST-4")
@pytest.mark.needs("atomic")
@pytest.mark.parametrize("shared", [True, False], ids=["one-client", "own-clients"])
def test_one_of_many_concurrent_writers_wins_for_every_reader(
    clients: Clients, client: ResultClient, within: float, shared: bool
) -> None:
    writers = [client if shared else clients.open() for _ in range(8)]
    for task_id in [new_id() for _ in range(25)]:
        ends = [success(task_id, index) for index in range(6)]
        ends += [failure(task_id, ValueError("lost")), revoked(task_id)]
        watch = start(partial(first_end, client, task_id))

        applied = together(
            [partial(w.store, r) for w, r in zip(writers, ends, strict=True)], within=within
        )

        assert applied.count(True) == 1, f"{applied.count(True)} writers were told that they won"
        winner = ends[applied.index(True)]
        assert watch.result(within) == winner
        assert [writer.load(task_id) for writer in writers] == [winner] * len(writers)


def first_end(client: ResultClient, task_id: str) -> Record:
    """Return the terminal record that a reader sees first, looking all the time."""
    record = client.load(task_id)
    while record is None or not record.is_terminal:
        record = client.load(task_id)
    return record


@clause("ST-4")
@pytest.mark.needs("atomic")
@pytest.mark.needs("shared")
def test_two_processes_never_both_win(target: Target, client: ResultClient, namespace: str) -> None:
    ids = [new_id() for _ in range(100)]
    with (
        elsewhere.Other(target, namespace, "compete", ids=ids, name="one") as one,
        elsewhere.Other(target, namespace, "compete", ids=ids[::-1], name="two") as two,
    ):
        rivals = start(two.finish)
        first = dict(zip(ids, one.finish(), strict=True))
        second = dict(zip(ids[::-1], rivals.result(elsewhere.SECONDS), strict=True))

    for task_id in ids:
        assert first[task_id] != second[task_id], "both or neither were told that they won"
        assert value_of(client.load(task_id)) == ("one" if first[task_id] else "two")


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


@clause("ST-5")
@pytest.mark.needs("atomic")
@pytest.mark.needs("intermediate")
def test_one_of_two_starts_of_the_same_attempt_is_applied(
    clients: Clients, within: float
) -> None:
    writers = [clients.open() for _ in range(4)]
    for _ in range(25):
        start_of_attempt = unfinished(new_id())

        applied = together(
            [partial(writer.store, start_of_attempt) for writer in writers], within=within
        )

        assert applied.count(True) == 1, "more than one worker was told to run the task"


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


@clause("ST-6")
@pytest.mark.needs("atomic")
def test_a_revocation_and_an_end_that_race_have_one_winner(clients: Clients, within: float) -> None:
    worker, owner, reader = (clients.open() for _ in range(3))
    for _ in range(40):
        task_id = new_id()
        worker.store(unfinished(task_id))
        records = [success(task_id, "done"), revoked(task_id)]

        applied = together(
            [partial(worker.store, records[0]), partial(owner.store, records[1])], within=within
        )

        assert applied.count(True) == 1
        winner = records[applied.index(True)]
        assert [each.load(task_id) for each in (worker, owner, reader)] == [winner] * 3


@clause("ST-7")
@pytest.mark.needs("intermediate")
def test_no_reader_sees_a_state_without_its_payload(
    clients: Clients, client: ResultClient, capabilities: Capabilities, within: float
) -> None:
    task_id = new_id()
    size = min(2**20, capabilities.max_record_bytes // 2)
    readers = [clients.open() for _ in range(8)]
    watches = [start(partial(check_until_success, reader, task_id)) for reader in readers]

    for attempt in range(1, 9):
        client.store(self_describing(task_id, State.STARTED, attempt, size))
        client.store(self_describing(task_id, State.RETRY, attempt, size // attempt))
    client.store(self_describing(task_id, State.SUCCESS, 9, size))

    for watch in watches:
        assert watch.result(10 * within) > 0


@clause("ST-7")
def test_no_reader_sees_a_success_without_its_value(
    clients: Clients, client: ResultClient, capabilities: Capabilities, within: float
) -> None:
    size = min(2**20, capabilities.max_record_bytes // 2)
    for attempt in range(1, 9):
        task_id = new_id()
        readers = [clients.open() for _ in range(4)]
        watches = [start(partial(check_until_success, reader, task_id)) for reader in readers]

        client.store(self_describing(task_id, State.SUCCESS, attempt, size))

        assert [watch.result(10 * within) for watch in watches] == [1] * len(readers)


def self_describing(task_id: str, state: str, attempt: int, size: int) -> Record:
    """Return a record whose payload tells which record it belongs to, and whether it is whole."""
    body = f"{state} {attempt} ".encode() + random.Random(attempt).randbytes(size)
    return Record(
        task_id=task_id,
        state=state,
        attempt=attempt,
        outcome=Payload("x-checked", hashlib.sha256(body).digest() + body),
    )


def check_until_success(client: ResultClient, task_id: str) -> int:
    """Read until SUCCESS and check every payload; return how many were checked."""
    checked = 0
    while True:
        record = client.load(task_id)
        if record is None:
            continue
        assert record.outcome is not None, f"{record.state} without its payload"
        digest, body = record.outcome.body[:32], record.outcome.body[32:]
        assert hashlib.sha256(body).digest() == digest, f"a partial payload with {record.state}"
        assert body.startswith(f"{record.state} {record.attempt} ".encode()), "another's payload"
        checked += 1
        if record.state == State.SUCCESS:
            return checked


@clause("ST-8")
@pytest.mark.needs("intermediate")
def test_a_client_reads_its_own_writes(clients: Clients, within: float) -> None:
    task_id = new_id()

    def write_and_read(client: ResultClient) -> None:
        for attempt in range(1, 26):
            client.store(unfinished(task_id, attempt=attempt))
            seen = loaded(client, task_id)
            assert seen.attempt >= attempt, f"wrote attempt {attempt}, then read {seen.attempt}"

    together(
        [partial(write_and_read, client) for client in [clients.open() for _ in range(4)]],
        within=4 * within,
    )


@clause("ST-8")
def test_others_see_a_finished_write_within_the_declared_visibility(
    client: ResultClient,
    second_client: ResultClient,
    capabilities: Capabilities,
    timing: Timing,
) -> None:
    for index in range(50):
        record = success(new_id(), index)
        second_client.load(record.task_id)  # a cache that remembers "nothing" would show now
        client.store(record)

        bound = capabilities.visibility and capabilities.visibility + timing.jitter
        seen = timing.eventually(partial(second_client.load, record.task_id), within=bound)

        assert seen == record


@clause("ST-8")
def test_nobody_sees_a_task_come_back_from_its_end(
    clients: Clients, client: ResultClient, within: float
) -> None:
    ids = [new_id() for _ in range(20)]

    def watch(reader: ResultClient) -> None:
        over: set[str] = set()
        while len(over) < len(ids):
            for task_id, record in zip(ids, reader.load_many(ids), strict=True):
                terminal = isinstance(record, Record) and record.is_terminal
                assert terminal or task_id not in over, f"{task_id} came back from its end"
                if terminal:
                    over.add(task_id)

    watches = [start(partial(watch, clients.open())) for _ in range(3)]
    for task_id in ids:
        client.store(unfinished(task_id))
        client.store(success(task_id, "over"))
        client.store(unfinished(task_id, attempt=2))
        client.store(failure(task_id, ValueError("late")))

    for each in watches:
        each.result(4 * within)
