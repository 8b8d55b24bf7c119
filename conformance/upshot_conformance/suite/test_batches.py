"""Batches: answers by position, order within, and nothing lost between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    ConfigError,
    InvalidTaskIdError,
    PayloadTooLargeError,
    UpshotError,
)
from upshot.origin import Origin
from upshot.record import Record
from upshot.result import AsyncResult
from upshot.result_set import ResultSet
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import together
from upshot_conformance.fixtures import Clients
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    CODECS,
    ended,
    failure,
    new_id,
    revoked,
    success,
    unfinished,
    value_of,
)
from upshot_conformance.selection import Target
from upshot_conformance.suite.claims import claiming
from upshot_conformance.suite.spy import Spy

MANY = 2_500
"""Records; more than two of the batches of 1 000 in which hooks are asked, and not a multiple."""


def values(found: Sequence[Record | UpshotError | None]) -> list[Any]:
    """Return the value of each record, and what is no record as it is."""
    return [value_of(each) if isinstance(each, Record) else each for each in found]


@clause("BT-1")
def test_a_batch_read_answers_each_question_in_its_place(
    client: ResultClient, second_client: ResultClient
) -> None:
    ids = [new_id() for _ in range(6)]
    b, e, c = ids[1], ids[4], ids[2]
    client.store_many([success(c, "c"), success(e, "e"), success(b, "b")])
    asked = [e, "unknown", b, e, c, "zzz", b, b, e]

    for each in (client, second_client):
        found = values(each.load_many(asked))
        assert found == ["e", None, "b", "e", "c", None, "b", "b", "e"]
        assert values(each.load_many(asked[::-1])) == found[::-1]


@clause("BT-1")
def test_a_batch_read_of_nothing_returns_nothing(client: ResultClient) -> None:
    client.store(success(new_id(), 1))

    assert client.load_many([]) == []
    assert client.load_many(iter(())) == []
    assert client.store_many([]) == []
    assert list(client.wait_many([], timeout=0)) == []
    client.forget([])
    assert ResultSet[Any]([]).get(timeout=0) == []


@clause("BT-1")
def test_a_batch_may_be_given_by_a_generator(client: ResultClient) -> None:
    ids = [new_id() for _ in range(5)]

    applied = client.store_many(success(task_id, n) for n, task_id in enumerate(ids))
    found = client.load_many(task_id for task_id in reversed(ids))
    client.forget(task_id for task_id in ids[:2])

    assert applied == [True] * 5
    assert values(found) == [4, 3, 2, 1, 0]
    assert values(client.load_many(ids)) == [None, None, 2, 3, 4]


@clause("BT-1")
def test_one_id_a_thousand_times_is_a_thousand_answers(client: ResultClient) -> None:
    task_id = new_id()
    client.store(success(task_id, "same"))

    assert values(client.load_many([task_id] * 1001)) == ["same"] * 1001
    assert client.load_many(["unknown"] * 1001) == [None] * 1001


@clause("BT-1", "BT-3")
def test_thousands_of_records_are_each_in_their_place(
    client: ResultClient, second_client: ResultClient
) -> None:
    ids = [new_id() for _ in range(MANY)]
    places = {task_id: n for n, task_id in enumerate(ids)}
    early = set(range(0, MANY, 7)) | {998, 999, 1000, 1001, 1999, 2000}
    client.store_many([revoked(ids[n]) for n in early])

    applied = client.store_many([success(task_id, n) for n, task_id in enumerate(ids)])
    asked = [ids[n * 7919 % MANY] for n in range(MANY)]  # in an order without an order
    found = second_client.load_many(asked)

    assert [n for n in range(MANY) if applied[n] == (n in early)] == [], "answers are misplaced"
    assert len(found) == MANY
    for record, task_id in zip(found, asked, strict=True):
        assert isinstance(record, Record), f"{task_id} is missing"
        assert record.task_id == task_id
        is_early = places[task_id] in early
        assert record.state == (State.REVOKED if is_early else State.SUCCESS)
        assert is_early or value_of(record) == places[task_id]
    client.forget(ids)  # quicker than the harness


@clause("BT-1", "RL-2")
def test_thousands_of_records_are_forgotten_and_no_other(client: ResultClient) -> None:
    ids = [new_id() for _ in range(MANY)]
    kept = new_id()
    client.store_many([success(task_id, 1) for task_id in [*ids, kept]])

    client.forget([*ids, *ids[:3], "unknown"])

    assert [found for found in client.load_many(ids) if found is not None] == []
    assert value_of(client.load(kept)) == 1


@clause("BT-1")
def test_handles_of_a_set_get_their_own_results(client: ResultClient) -> None:
    ids = [new_id() for _ in range(50)]
    client.store_many([success(task_id, n) for n, task_id in enumerate(ids)][::-1])
    order = [n * 37 % 50 for n in range(50)] + [0, 49, 0]
    origin = Origin(client, CODECS)

    found = ResultSet([AsyncResult[Any](ids[n], origin) for n in order]).get(timeout=0)

    assert found == order


# -- how a batch is stored ------------------------------------------------------------------------

LIVES: tuple[tuple[Callable[[str], list[Record]], list[bool]], ...] = (
    (lambda a: [success(a, "first"), success(a, "second")], [True, False]),
    (lambda a: [success(a, "first"), failure(a, ValueError()), revoked(a)], [True, False, False]),
    (lambda a: [revoked(a), success(a, "late")], [True, False]),
    (lambda a: [success(a, "first"), unfinished(a), success(a, "first")], [True, False, False]),
    (lambda a: [unfinished(a), success(a, "end"), unfinished(a)], [True, True, False]),
    (lambda a: [unfinished(a, attempt=2), unfinished(a, attempt=1)], [True, False]),
    (
        lambda a: [
            unfinished(a, State.QUEUED),
            unfinished(a),
            unfinished(a, State.RETRY),
            unfinished(a, attempt=2),
            success(a, "end", attempt=2),
        ],
        [True] * 5,
    ),
)
"""What is stored under one id, in order, and what of it applies."""


@clause("BT-3")
@pytest.mark.needs("intermediate")
@pytest.mark.parametrize("between", [0, 1, 20], ids=["together", "in turn", "apart"])
def test_a_batch_with_one_id_several_times_is_stored_in_order(
    client: ResultClient, second_client: ResultClient, between: int
) -> None:
    for make, expected in LIVES:
        life = make(new_id())
        batch: list[Record] = []
        for record in life:
            batch += [record, *(success(new_id(), n) for n in range(between))]

        applied = client.store_many(batch)

        told = [(each.state, each.attempt) for each in life]
        assert applied[:: between + 1] == expected, f"of {told}"
        assert sum(applied) == len(batch) - expected.count(False), "another record was refused"
        last = [record for record, applies in zip(life, expected, strict=True) if applies][-1]
        assert second_client.load(last.task_id) == last, f"of {told}, the last to apply is stored"


@clause("BT-3")
def test_an_id_that_comes_again_after_a_thousand_others_obeys_the_first(
    client: ResultClient,
) -> None:
    task_id = new_id()
    others = [success(new_id(), n) for n in range(1_100)]

    applied = client.store_many([success(task_id, "first"), *others, success(task_id, "second")])

    assert applied == [True] * 1_101 + [False]
    assert value_of(client.load(task_id)) == "first"
    client.forget([record.task_id for record in others])  # quicker than the harness


@clause("BT-3")
def test_lives_that_cross_in_a_batch_do_not_disturb_each_other(client: ResultClient) -> None:
    a, b, c = new_id(), new_id(), new_id()
    client.store(success(c, "before"))

    applied = client.store_many(
        [success(a, 1), success(b, 1), revoked(c), success(a, 2), failure(b, ValueError()),
         success(c, 2), revoked(a), success(b, 3)]
    )  # fmt: skip

    assert applied == [True, True, False, False, False, False, False, False]
    assert values(client.load_many([a, b, c])) == [1, 1, "before"]


@clause("BT-3")
@pytest.mark.parametrize("pattern", [[False, True], [True, False], [True, False, False, True]])
def test_each_record_of_a_batch_has_its_own_answer(
    client: ResultClient, second_client: ResultClient, pattern: list[bool]
) -> None:
    ids = [new_id() for _ in range(12)]
    expected = (pattern * len(ids))[: len(ids)]
    second_client.store_many(
        [ended(task_id, "FAILURE") for task_id, new in zip(ids, expected, strict=True) if not new]
    )

    applied = client.store_many([success(task_id, task_id) for task_id in ids])

    assert applied == expected
    for record, task_id, new in zip(client.load_many(ids), ids, expected, strict=True):
        assert isinstance(record, Record)
        assert record.task_id == task_id
        assert record.state == (State.SUCCESS if new else State.FAILURE)


def oversized(limit: int) -> Iterator[tuple[Record, float | None, type[UpshotError]]]:
    """Yield what is refused, with the expiry that it is given, and how."""
    yield success(new_id(), "x" * limit), None, PayloadTooLargeError
    yield success(new_id(), 1)._replace(task_id="x" * 256), None, InvalidTaskIdError
    yield success(new_id(), 1)._replace(task_id="a\nb"), None, InvalidTaskIdError
    yield success(new_id(), 1), 0.0, ConfigError


@clause("BT-3")
@pytest.mark.parametrize("place", [0, 2, 4, 1500], ids=["first", "amid", "last", "second thousand"])
def test_a_batch_with_a_record_that_must_be_refused_is_refused_before_any_io(
    target: Target, clients: Clients, harness: Harness, namespace: str, place: int
) -> None:
    limit = 2**16
    spies: list[Spy] = []
    narrow = claiming(target, max_record_bytes=limit)  # a large one could not be made here

    def make() -> Spy:
        spies.append(Spy.above(narrow()))
        return spies[-1]

    client = clients.open(make=make)
    for bad, expires, error in oversized(limit):
        batch = [success(new_id(), n) for n in range(max(4, place))]
        batch.insert(place, bad)
        with pytest.raises(error):
            client.store_many(batch, **({} if expires is None else {"expires": expires}))

    assert [spy.calls for spy in spies] == [[]]
    assert harness.raw_objects(namespace) == set()


@clause("BT-3")
def test_a_batch_as_large_as_it_comes_is_stored(
    client: ResultClient, second_client: ResultClient, capabilities: Capabilities
) -> None:
    size = min(2**20, capabilities.max_record_bytes // 2)
    records = [success(new_id(), str(n) * size) for n in range(10)]
    batch = [*records, *(success(new_id(), n) for n in range(3)), *records]

    applied = client.store_many(batch)

    assert applied == [True] * 13 + [False] * 10
    found = second_client.load_many([record.task_id for record in reversed(records)])
    assert found == records[::-1]


@clause("BT-3")
@pytest.mark.needs("atomic")
def test_several_batches_at_once_have_one_winner_per_record(
    client: ResultClient, second_client: ResultClient, clients: Clients, within: float
) -> None:
    ids = [new_id() for _ in range(100)]
    writers = [client, second_client, clients.open(), clients.open()]

    def write(writer: ResultClient, name: int) -> list[bool]:
        order = ids if name % 2 else ids[::-1]  # where locks are taken, they are taken crosswise
        applied = writer.store_many([success(task_id, name) for task_id in order])
        return applied if name % 2 else applied[::-1]

    writes = [partial(write, writer, name) for name, writer in enumerate(writers)]
    answers = together(writes, within=2 * within)

    won = [[name for name, each in enumerate(answers) if each[n]] for n in range(len(ids))]
    assert [len(names) for names in won] == [1] * len(ids)
    assert [[value] for value in values(client.load_many(ids))] == won
