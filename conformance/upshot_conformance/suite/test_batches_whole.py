"""Batches: applied as a whole where that is declared, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Proxied
from upshot_conformance.proxies import Proxies
from upshot_conformance.records import new_id, success
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.timing import Timing

TRIES = 3
"""How often a moment is looked for that does not come each time."""

BATCH = 250
"""Records in a batch that hooks get in one call."""

PER_THOUSAND = 30
"""Round trips for 1 000 items at most: a few for each of several servers and steps."""

# Whether a batch is whole is not probed where it is not declared: a part that nobody happened to
# see proves nothing.


def missing(client: ResultClient, ids: list[str]) -> list[int]:
    """Return the places of ids that have no record."""
    return [place for place, found in enumerate(client.load_many(ids)) if found is None]


@clause("BT-3", "CP-3")
@pytest.mark.needs("transactional")
def test_no_reader_ever_sees_a_part_of_a_batch(
    client: ResultClient, second_client: ResultClient, timing: Timing, capabilities: Capabilities
) -> None:
    size = min(30_000, capabilities.max_record_bytes // 2)  # more than services take in one go
    for _ in range(TRIES):
        ids = [new_id() for _ in range(BATCH)]
        ends = [ids[0], ids[-1]]
        records = [success(task_id, "x" * size) for task_id in ids]
        writing = start(partial(client.store_many, records))

        while not (writing.done() or any(second_client.load_many(ends))):
            clock.sleep(timing.poll)
        lost = [] if writing.done() else missing(second_client, ids)

        assert writing.result(2 * timing.within) == [True] * BATCH
        assert lost == [], f"{len(lost)} of {BATCH} records were not there when others were"


@clause("BT-3", "CP-3")
@pytest.mark.needs("transactional")
@pytest.mark.needs("shared")
def test_a_batch_whose_process_is_killed_is_stored_as_a_whole_or_not_at_all(
    target: Target, client: ResultClient, namespace: str, timing: Timing
) -> None:
    batches = [[new_id() for _ in range(BATCH)] for _ in range(40)]
    ends = [batches[1][0], batches[1][-1]]

    with elsewhere.Other(target, namespace, "store_batches", batches=batches) as other:
        other.begin()
        begun = timing.eventually(lambda: any(client.load_many(ends)), within=elsewhere.SECONDS)

    assert begun, "the other process stored nothing"
    counts = [BATCH - len(missing(client, ids)) for ids in batches]
    assert counts[0] == BATCH
    assert set(counts) <= {0, BATCH}, f"records that are there of each batch: {counts}"
    assert sorted(counts, reverse=True) == counts, "a later batch was stored before an earlier one"


@clause("BT-2", "CP-3")
@pytest.mark.needs("batch", probe=True)
def test_ten_thousand_ids_take_a_bounded_number_of_round_trips(
    proxied: Proxied, second_client: ResultClient
) -> None:
    client = proxied.open(timeout=60)
    client.store(success(new_id(), 1))  # connects, and prepares what is prepared once
    client.load(new_id())

    # A client that writes on while answers come in may seem to make more trips than it does.
    found: dict[str, int] = {}
    for _ in range(TRIES):
        found = too_many_trips(proxied.line, client, second_client)
        if not found:
            break

    assert found == {}, f"round trips, of which at most {PER_THOUSAND} per 1 000 items are needed"


def too_many_trips(line: Proxies, client: ResultClient, other: ResultClient) -> dict[str, int]:
    """Store, read and forget through the proxies; return which took how many trips too many."""
    ids = [new_id() for _ in range(10_000)]
    records = [success(task_id, 1) for task_id in ids[:3_000]]
    actions: dict[str, tuple[int, Callable[[], object]]] = {
        "store_many": (3, lambda: client.store_many(records)),
        "store_many, in vain": (3, lambda: client.store_many(records)),
        "load_many": (10, lambda: client.load_many(ids)),
        "forget": (10, lambda: client.forget(ids)),
    }
    found: dict[str, int] = {}
    for name, (thousands, action) in actions.items():
        before = line.turns
        action()
        trips = line.turns - before
        if trips > PER_THOUSAND * thousands:
            found[name] = trips
    assert other.load_many(ids[::1_000]) == [None] * 10, "something was not forgotten"
    return found
