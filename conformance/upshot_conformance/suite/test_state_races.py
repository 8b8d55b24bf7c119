"""States under concurrency: one winner, whole records, nothing goes backwards."""

from __future__ import annotations

import hashlib
import random
from functools import partial

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients
from upshot_conformance.records import (
    failure,
    new_id,
    revoked,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.expect import loaded
from upshot_conformance.timing import Timing


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
def test_one_of_two_starts_of_the_same_attempt_is_applied(clients: Clients, within: float) -> None:
    writers = [clients.open() for _ in range(4)]
    for _ in range(25):
        start_of_attempt = unfinished(new_id())

        applied = together(
            [partial(writer.store, start_of_attempt) for writer in writers], within=within
        )

        assert applied.count(True) == 1, "more than one worker was told to run the task"


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
def test_a_client_reads_its_own_writes(
    clients: Clients, capabilities: Capabilities, within: float
) -> None:
    shared = new_id()

    def write_and_read(client: ResultClient) -> None:
        # Several writers of one task are for ST-5, where that is declared.
        task_id = shared if capabilities.atomic else new_id()
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
