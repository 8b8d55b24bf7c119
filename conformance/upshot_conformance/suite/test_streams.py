"""Streams: items come in order, stay as they are, wake who waits, and go when forgotten."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import (
    ResultForgottenError,
    ResultTimeoutError,
    StreamBrokenError,
    TaskRevokedError,
    UnsupportedError,
)
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import (
    failure,
    new_id,
    revoked,
    streamed,
    success,
    unfinished,
    yielded,
)
from upshot_conformance.selection import Target
from upshot_conformance.suite.claims import claiming
from upshot_conformance.suite.hearing import ByHintsOnly
from upshot_conformance.suite.latency import SAMPLES, Lateness, bound
from upshot_conformance.suite.spy import Spy
from upshot_conformance.suite.values import FALSY, MANGLED_VALUES
from upshot_conformance.timing import Timing

READERS = 16
MANY = 2500
"""Items: more than one batch, and no whole number of them."""


def end_after(client: ResultClient, task_id: str, count: int, value: object = None) -> None:
    """End a task that has yielded `count` items."""
    client.store(streamed(success(task_id, value), count))


def seen_by(items: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    """Return what an iteration yields, and what it raises in the end."""
    seen: list[Any] = []
    try:
        for item in items:
            seen.append(item)  # noqa: PERF402 - what came before the error is the point
    except Exception as exc:
        return seen, exc
    return seen, None


def next_of(items: Iterator[Any]) -> tuple[Any, float]:
    """Return what comes next, None for the end, and when it came on the monotonic clock."""
    return next(items, None), clock.monotonic()


# -- every item, once, in order -------------------------------------------------------------------


@clause("SM-1")
@pytest.mark.needs("streams")
def test_items_come_home_in_order_and_then_the_end(
    client: ResultClient, handle: MakeHandle, within: float
) -> None:
    task_id, values = new_id(), [*FALSY, *MANGLED_VALUES]
    client.store_encoded(yielded(client, task_id, values))
    end_after(client, task_id, len(values), "returned")

    seen = list(handle(task_id).stream(timeout=within))

    assert seen == values
    assert list(map(type, seen)) == list(map(type, values))
    assert handle(task_id).get(timeout=within) == "returned"


@clause("SM-1")
@pytest.mark.needs("streams")
def test_a_stream_of_several_batches_is_whole(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, within: float
) -> None:
    task_id = new_id()
    client.store_encoded(yielded(client, task_id, range(MANY)))
    end_after(client, task_id, MANY)

    for each in (client, second_client):
        assert list(handle(task_id, each).stream(timeout=within)) == list(range(MANY))


@clause("SM-1")
@pytest.mark.needs("streams")
def test_many_readers_each_see_all_while_it_is_written(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id, values = new_id(), list(range(100))
    client.store(unfinished(task_id))

    def read(each: ResultClient) -> list[Any]:
        return list(handle(task_id, each).stream(timeout=3 * timing.within))

    async def read_async() -> list[Any]:
        stream = handle(task_id).stream(timeout=3 * timing.within)
        return [item async for item in stream]

    readers = [start(partial(read, each)) for each in (client, second_client) * (READERS // 2)]
    readers.append(start(lambda: asyncio.run(read_async())))
    timing.eventually(lambda: client.stats()["waiters"] and second_client.stats()["waiters"])
    for index in range(0, len(values), 7):
        part = values[index : index + 7]
        second_client.store_encoded(yielded(client, task_id, part, start=index))
    end_after(second_client, task_id, len(values))

    assert [each.result(4 * timing.within) for each in readers] == [values] * len(readers)


@clause("SM-1", "SM-5")
@pytest.mark.needs("streams")
def test_a_stream_of_nothing_ends_and_so_does_what_is_no_stream(
    client: ResultClient, handle: MakeHandle, within: float
) -> None:
    empty, plain = new_id(), new_id()
    end_after(client, empty, 0)
    client.store(success(plain, [1, 2]))

    assert list(handle(empty).stream(timeout=within)) == []
    assert list(handle(plain).stream(timeout=within)) == []


# -- the first one stays --------------------------------------------------------------------------


@clause("SM-2")
@pytest.mark.needs("streams")
def test_a_second_item_under_an_index_changes_nothing(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, within: float
) -> None:
    task_id = new_id()
    assert client.store_encoded(yielded(client, task_id, "ab")) == [True, True]

    applied = second_client.store_encoded(yielded(client, task_id, "xyz"))

    end_after(client, task_id, 3)
    assert applied == [False, False, True]
    assert list(handle(task_id).stream(timeout=within)) == ["a", "b", "z"]


@clause("SM-2")
@pytest.mark.needs("streams")
@pytest.mark.needs("atomic")
def test_of_writers_at_the_same_moment_one_wins_for_every_reader(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    for _ in range(20):
        task_id = new_id()

        def write(name: str, task_id: str = task_id) -> list[bool]:
            each = client if name < "c" else second_client
            return each.store_encoded(yielded(each, task_id, [name] * 3))

        answers = together([partial(write, name) for name in "abcd"], within=timing.within)
        end_after(client, task_id, 3)

        assert [sum(applied) for applied in zip(*answers, strict=True)] == [1, 1, 1]
        winners = [
            "abcd"[next(n for n, each in enumerate(answers) if each[index])] for index in range(3)
        ]
        for each in (client, second_client):
            assert list(handle(task_id, each).stream(timeout=timing.within)) == winners


# -- waking ---------------------------------------------------------------------------------------


@clause("SM-3")
@pytest.mark.needs("streams")
@pytest.mark.parametrize("what", ["item", "end"])
def test_whoever_waits_for_the_next_item_is_woken(
    clients: Clients,
    target: Target,
    second_client: ResultClient,
    handle: MakeHandle,
    capabilities: Capabilities,
    timing: Timing,
    what: str,
) -> None:
    hearing = clients.open(make=lambda: ByHintsOnly.above(target.make()))
    late: list[float] = []
    with Lateness() as lateness:
        for _ in range(SAMPLES):
            task_id = new_id()
            second_client.store_encoded(yielded(second_client, task_id, "a"))
            items = iter(handle(task_id, hearing).stream(timeout=3 * timing.within))
            assert next(items) == "a"
            waiting = start(partial(next_of, items))
            timing.eventually(lambda: hearing.stats()["waiters"] >= 2)
            timing.throughout(lambda: not waiting.done())  # noqa: B023 - it is over by then
            if what == "item":
                second_client.store_encoded(yielded(second_client, task_id, "b", start=1))
            else:
                end_after(second_client, task_id, 1)
            stored = clock.monotonic()
            found, moment = waiting.result(3 * timing.within)
            assert found == ("b" if what == "item" else None)
            late.append(moment - stored)
            items.close()

    assert statistics.median(late) <= bound(capabilities, timing, lateness)


# -- going on -------------------------------------------------------------------------------------


@clause("SM-4")
@pytest.mark.needs("streams")
def test_a_reader_begins_anywhere_and_goes_on_where_it_stopped(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    client.store_encoded(yielded(client, task_id, range(10)))

    seen, error = seen_by(handle(task_id).stream(timeout=timing.quiet))
    assert seen == list(range(10))
    assert isinstance(error, ResultTimeoutError)
    seen, error = seen_by(handle(task_id).stream(timeout=0))
    assert (seen, type(error)) == (list(range(10)), ResultTimeoutError)

    client.store_encoded(yielded(client, task_id, range(10, 15), start=10))
    end_after(client, task_id, 15)
    for first in (0, 4, 10, 14, 15, 99):
        rest = handle(task_id, second_client).stream(first, timeout=timing.within)
        assert list(rest) == list(range(first, 15))


@clause("SM-4")
@pytest.mark.needs("streams")
def test_a_reader_that_leaves_awaits_nothing_any_more(
    client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    client.store_encoded(yielded(client, task_id, range(3)))
    seen_by(handle(task_id).stream(timeout=timing.quiet))
    for item in handle(task_id).stream(timeout=timing.within):
        if item == 1:
            break

    async def is_cancelled() -> None:
        async def read() -> None:
            async for _ in handle(task_id).stream(timeout=timing.within):
                pass

        reading = asyncio.create_task(read())
        await asyncio.wait([reading], timeout=timing.quiet)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(is_cancelled())

    assert timing.eventually(lambda: not client.stats()["keys"]), "it is still waited for"


# -- failures and holes ---------------------------------------------------------------------------


@clause("SM-5")
@pytest.mark.needs("streams")
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "of a lost worker"])
def test_a_failure_comes_after_the_items_before_it(
    client: ResultClient, handle: MakeHandle, within: float, counted: bool
) -> None:
    task_id = new_id()
    client.store_encoded(yielded(client, task_id, range(20)))
    end = failure(task_id, ValueError("after twenty"))
    client.store(streamed(end, 20) if counted else end)

    for first in (0, 20):
        seen, error = seen_by(handle(task_id).stream(first, timeout=within))
        assert seen == list(range(first, 20))
        assert repr(error) == "ValueError('after twenty')"


@clause("SM-5")
@pytest.mark.needs("streams")
def test_a_revocation_comes_after_the_items_before_it(
    client: ResultClient, handle: MakeHandle, within: float
) -> None:
    task_id = new_id()
    client.store_encoded(yielded(client, task_id, range(3)))
    client.store(revoked(task_id))

    seen, error = seen_by(handle(task_id).stream(timeout=within))

    assert seen == [0, 1, 2]
    assert isinstance(error, TaskRevokedError)


@clause("SM-5")
@pytest.mark.needs("streams")
@pytest.mark.parametrize("hole", [0, 5, 9])
def test_a_missing_item_is_an_error(
    client: ResultClient, handle: MakeHandle, within: float, hole: int
) -> None:
    task_id = new_id()
    records = yielded(client, task_id, range(10))
    client.store_encoded([record for index, record in enumerate(records) if index != hole])
    end_after(client, task_id, 10)

    seen, error = seen_by(handle(task_id).stream(timeout=within))

    assert seen == list(range(hole))
    assert isinstance(error, StreamBrokenError), error
    assert error.index == hole
    assert list(handle(task_id).stream(hole + 1, timeout=within)) == list(range(hole + 1, 10))


# -- release --------------------------------------------------------------------------------------


@clause("SM-6")
@pytest.mark.needs("streams")
@pytest.mark.parametrize("count", [1, 16, 17, MANY])
def test_forgetting_removes_every_item(
    client: ResultClient,
    second_client: ResultClient,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    count: int,
) -> None:
    ended, running, other = new_id(), new_id(), new_id()
    for task_id in (ended, running, other):
        client.store_encoded(yielded(client, task_id, range(count)))
    end_after(client, ended, count)
    client.store(unfinished(running))
    end_after(client, other, count)

    second_client.forget([ended, new_id(), running])

    assert list(handle(other).stream(timeout=0)) == list(range(count))
    handle(other).forget()
    assert harness.raw_objects(namespace) == set()


@clause("SM-6")
@pytest.mark.needs("streams")
def test_a_reader_of_a_forgotten_stream_ends(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, timing: Timing
) -> None:
    task_id = new_id()
    client.store(unfinished(task_id))
    client.store_encoded(yielded(client, task_id, range(3)))
    reading = start(lambda: seen_by(handle(task_id).stream(timeout=timing.within / 2)))
    timing.eventually(lambda: client.stats()["waiters"])

    second_client.forget([task_id])

    seen, error = reading.result(2 * timing.within)
    assert seen == [0, 1, 2]
    assert isinstance(error, ResultForgottenError | ResultTimeoutError)
    client.store_encoded(yielded(client, task_id, "new"))
    end_after(client, task_id, 3)
    assert list(handle(task_id).stream(timeout=timing.within)) == ["n", "e", "w"]


@clause("SM-6")
@pytest.mark.needs("streams")
@pytest.mark.needs("expiry_resolution")
def test_every_item_expires(
    client: ResultClient,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    capabilities: Capabilities,
    timing: Timing,
) -> None:
    task_id, soon = new_id(), new_id()
    client.store_encoded(yielded(client, task_id, range(3)))
    lasting = [name for name in harness.raw_objects(namespace) if harness.ttl(name) is None]
    assert lasting == [], "items that never expire"

    client.store_encoded(yielded(client, soon, range(3), expires=0.3))
    end_after(client, soon, 3)
    patience = timing.within + (capabilities.expiry_resolution or 0.0)
    (key,) = client.keys.items(soon, (0,))
    assert timing.eventually(lambda: client.reader.bodies([key]) == [None], within=patience)
    seen, error = seen_by(handle(soon).stream(timeout=patience))
    assert seen == []
    assert isinstance(error, StreamBrokenError)


# -- isolation ------------------------------------------------------------------------------------

RELATED = (
    ("1", "1:1", "1+1", "11", "+1:1", "#1", "item", "1:item"),
    ("x" * 255, "x" * 254, "é" * 127, "é" * 126 + "e", "two words", "two  words", "a*", "a?"),
)
"""Ids of which one could be taken for another's with an index."""


@clause("SM-7")
@pytest.mark.needs("streams")
@pytest.mark.parametrize("ids", RELATED, ids=["digits", "awkward"])
def test_items_of_related_ids_do_not_meet(
    client: ResultClient, handle: MakeHandle, within: float, ids: tuple[str, ...]
) -> None:
    for task_id in ids:
        client.store_encoded(yielded(client, task_id, [f"{n} of {task_id}" for n in range(13)]))
        end_after(client, task_id, 13, f"of {task_id}")

    client.forget(ids[:1])

    for task_id in ids[1:]:
        expected = [f"{n} of {task_id}" for n in range(13)]
        assert list(handle(task_id).stream(timeout=within)) == expected
        assert handle(task_id).get(timeout=within) == f"of {task_id}"
    seen, error = seen_by(handle(ids[0]).stream(timeout=0))
    assert (seen, type(error)) == ([], ResultTimeoutError)


@clause("SM-7")
@pytest.mark.needs("streams")
def test_items_of_two_namespaces_do_not_meet(
    clients: Clients, client: ResultClient, handle: MakeHandle, namespace: str, within: float
) -> None:
    other = clients.open(namespace=f"{namespace}+0")
    for each in (client, other):
        each.store_encoded(yielded(each, "0:same", [each.namespace] * 3))
        end_after(each, "0:same", 3)

    other.forget(["0:same"])

    assert list(handle("0:same").stream(timeout=within)) == [namespace] * 3


@clause("SM-7")
@pytest.mark.needs("streams")
@pytest.mark.needs("scan")
def test_no_listing_of_records_shows_an_item(client: ResultClient) -> None:
    ids = ["plain", "two words", "x" * 255]
    for task_id in ids:
        client.store_encoded(yielded(client, task_id, range(5)))
        end_after(client, task_id, 5)

    assert sorted(record.task_id for record in client.scan()) == sorted(ids)


# -- where it is not declared ---------------------------------------------------------------------


@clause("CP-2")
def test_streams_that_are_not_declared_are_refused_at_once(
    target: Target, clients: Clients, handle: MakeHandle
) -> None:
    spies: list[Spy] = []
    make = claiming(target, streams=False)

    def spy() -> Spy:
        spies.append(Spy.above(make()))
        return spies[-1]

    client = clients.open(make=spy)

    with pytest.raises(UnsupportedError):
        handle(new_id(), client).stream()

    assert [each.calls for each in spies] == [[]]
