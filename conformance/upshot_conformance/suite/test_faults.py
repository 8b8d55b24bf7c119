"""Lines that are cut, held, slow, or lose answers, through a proxy before the service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import NoneType

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ServiceError, ServiceUnavailableError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Proxied
from upshot_conformance.harness import NotApplicableError
from upshot_conformance.proxies import Proxies
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.sending import (
    assert_works,
    everybody_waits,
    store_for,
    submitted,
    values,
    wait_in_a_loop,
)
from upshot_conformance.timing import Timing

Fault = Callable[[Proxies], None]


MOMENTARY = [
    pytest.param(Proxies.reset, id="reset"),
    pytest.param(Proxies.half_close, id="half closed"),
]
LASTING = [
    pytest.param(Proxies.cut, id="cut"),
    pytest.param(Proxies.hold, id="held"),
    pytest.param(Proxies.drop_replies, id="silent"),
]

HASTY = 0.6  # seconds that a call gets where its timeout is awaited


@clause("FT-1", "FT-2")
@pytest.mark.parametrize("fault", [*LASTING, *MOMENTARY])
def test_waits_find_what_others_stored_while_their_line_was(
    proxied: Proxied, timing: Timing, fault: Fault
) -> None:
    client, direct = proxied.open(), proxied.open_direct()
    results = {task_id: f"of {task_id}" for task_id in submitted(client, 3)}
    waits = everybody_waits(client, list(results), timing, timeout=4 * timing.within)

    fault(proxied.line)
    assert all(store_for(client, direct, results))
    proxied.line.heal()

    for found in values(waits, 5 * timing.within):
        assert found == results
    assert_works(client, timing)


@clause("FT-2")
def test_waits_find_what_others_stored_while_their_line_broke_again_and_again(
    proxied: Proxied, timing: Timing
) -> None:
    client, direct = proxied.open(), proxied.open_direct()
    results = {task_id: f"of {task_id}" for task_id in submitted(client, 4)}
    waits = everybody_waits(client, list(results), timing, timeout=4 * timing.within)

    for task_id, value in results.items():
        proxied.line.reset()
        store_for(client, direct, {task_id: value})

    for found in values(waits, 5 * timing.within):
        assert found == results


@clause("FT-1", "FT-5")
@pytest.mark.parametrize("fault", LASTING)
def test_waits_end_at_their_timeout_and_work_afterwards_over_a_line_that_is(
    proxied: Proxied, timing: Timing, fault: Fault
) -> None:
    client = proxied.open(timeout=HASTY)
    ids = submitted(client)
    waits = everybody_waits(client, ids, timing, timeout=HASTY)
    began = clock.monotonic()
    fault(proxied.line)
    storing = start(partial(client.store, success(new_id(), 1)))

    for found in values(waits[:-1], HASTY + 2 * timing.within):
        assert set(found.values()) == {"ResultTimeoutError"}
    assert clock.monotonic() - began < HASTY + timing.within

    for wait in (client.wait, partial(wait_in_a_loop, client)):
        began = clock.monotonic()
        waiting = start(partial(wait, ids[0], timeout=HASTY))
        assert type(waiting.exception(HASTY + 2 * timing.within)).__name__ == "ResultTimeoutError"
        assert HASTY - 0.01 <= clock.monotonic() - began < HASTY + timing.within
    assert isinstance(storing.exception(HASTY + timing.within), (ServiceUnavailableError, NoneType))
    proxied.line.heal()
    assert_works(client, timing)


@clause("FT-2", "ST-8")
@pytest.mark.parametrize("fault", LASTING)
def test_a_reader_is_told_the_truth_or_an_error_while_its_line_is(
    proxied: Proxied, timing: Timing, capabilities: Capabilities, fault: Fault
) -> None:
    client, direct = proxied.open(timeout=HASTY), proxied.open_direct()
    (task_id,) = submitted(client)
    assert not is_there(client, task_id)

    fault(proxied.line)
    store_for(client, direct, {task_id: "meanwhile"})

    # What carries results is not asked: the record has not come, and this is no answer of it.
    if not client.backend.reply_to:
        clock.sleep(capabilities.visibility)
        try:
            found = client.load(task_id)
        except ServiceUnavailableError:
            pass
        else:
            assert value_of(found) == "meanwhile"
    proxied.line.heal()
    assert timing.eventually(lambda: is_there(client, task_id))
    assert value_of(client.load(task_id)) == "meanwhile"


@clause("FT-3")
@pytest.mark.parametrize("fault", LASTING)
def test_a_store_is_confirmed_and_there_or_raises_over_a_line_that_is(
    proxied: Proxied, timing: Timing, fault: Fault
) -> None:
    client, direct = proxied.open(timeout=HASTY), proxied.open_direct()
    before, task_id = submitted(direct, 2)
    store_for(direct, client, {before: 0})

    fault(proxied.line)
    storing = start(partial(store_for, direct, client, {task_id: "once"}))
    error = storing.exception(HASTY + 2 * timing.within)

    if error is None:
        assert is_there(direct, task_id), "a store was confirmed that never reached the service"
    else:
        assert isinstance(error, ServiceError)
    proxied.line.heal()
    assert_works(client, timing)
    store_for(direct, client, {task_id: "once"})
    assert timing.eventually(lambda: is_there(direct, task_id))
    assert value_of(direct.load(task_id)) == "once"


@clause("FT-3")
@pytest.mark.parametrize("after", range(5))
def test_a_store_that_lost_an_answer_tells_the_truth_about_what_is_stored_once(
    proxied: Proxied, timing: Timing, capabilities: Capabilities, after: int
) -> None:
    client, direct = proxied.open(), proxied.open_direct()
    before, task_id = submitted(direct, 2)
    store_for(direct, client, {before: 0})

    proxied.line.lose_answer(after=after)
    try:
        applied = store_for(direct, client, {task_id: "first"})
    except ServiceError:
        pass
    else:
        assert list(applied) == [True], "what was stored at last was not said to be"
        assert timing.eventually(lambda: is_there(direct, task_id))
    proxied.line.heal()
    again = store_for(direct, client, {task_id: "first"})
    second = store_for(direct, client, {task_id: "second"})

    assert timing.eventually(lambda: is_there(direct, task_id))
    assert value_of(direct.load(task_id)) == "first"
    if capabilities.shared:  # what carries results cannot know what their reader has already
        assert (list(again), list(second)) == ([False], [False])


@clause("FT-3")
def test_what_was_confirmed_is_there(
    client: ResultClient, second_client: ResultClient, timing: Timing, capabilities: Capabilities
) -> None:
    for _ in range(20):
        batch = {new_id(): number for number in range(5)}

        client.store_many([success(task_id, value) for task_id, value in batch.items()])

        found = [is_there(second_client, task_id) for task_id in batch]
        if capabilities.visibility:
            timing.eventually(lambda: all(is_there(second_client, each) for each in batch))  # noqa: B023 - it ends within the loop
        else:
            assert all(found), "a store was confirmed that is not there"


@clause("FT-3")
def test_what_a_process_confirmed_before_it_was_killed_is_there(
    target: Target,
    client: ResultClient,
    namespace: str,
    timing: Timing,
    capabilities: Capabilities,
) -> None:
    if not (capabilities.shared or client.backend.reply_to):
        raise NotApplicableError("no other process can store here")
    ids = submitted(client, 5000)

    with elsewhere.Other(
        target, namespace, "store_and_tell", ids=ids, reply_to=client.backend.reply_to
    ) as other:
        confirmed = other.killed_after(50)

    assert len(confirmed) >= 50
    timing.eventually(lambda: is_there(client, confirmed[-1]))
    missing = [task_id for task_id in confirmed if not is_there(client, task_id)]
    assert missing == [], f"of {len(confirmed)} confirmed records {len(missing)} are not there"


@clause("FT-5")
def test_each_of_many_calls_keeps_its_timeout_while_the_service_says_nothing(
    proxied: Proxied, timing: Timing
) -> None:
    client = proxied.open(timeout=HASTY)
    known, unknown = submitted(client, 2)
    client.store(success(known, 1))
    calls: list[Callable[[], object]] = [
        partial(client.load, known),
        partial(client.load_many, [known, unknown]),
        partial(client.store, success(unknown, 2)),
        partial(client.forget, [new_id()]),
        partial(client.wait, unknown, timeout=HASTY),
        partial(wait_in_a_loop, client, unknown, timeout=HASTY),
    ]
    proxied.line.hold()

    began = clock.monotonic()
    running = [start(call) for call in calls * 4]
    errors = [each.exception(HASTY + 4 * timing.within) for each in running]

    assert clock.monotonic() - began < HASTY + timing.within, "a call took longer than it may"
    assert {type(error).__name__ for error in errors} <= {
        "NoneType",  # of what needs no service, such as a record that was carried here
        "ResultTimeoutError",
        "ServiceUnavailableError",
    }
    proxied.line.heal()
    assert_works(client, timing)


@clause("FT-5")
def test_calls_outlive_a_silence_that_is_shorter_than_their_timeout(
    proxied: Proxied, timing: Timing
) -> None:
    client = proxied.open(timeout=4 * timing.within)
    known, new = submitted(client, 2)
    client.store(success(known, 1))
    proxied.line.hold()

    calls: list[Future[Record | None]] = [
        start(partial(client.load, known)),
        start(partial(client.wait, known, timeout=4 * timing.within)),
        start(partial(client.wait, new, timeout=4 * timing.within)),
    ]
    storing = start(partial(client.store, success(new, 2)))
    timing.throughout(lambda: not storing.done())
    proxied.line.heal()

    assert storing.result(5 * timing.within)
    assert [value_of(call.result(5 * timing.within)) for call in calls] == [1, 1, 2]


@clause("FT-5")
def test_a_slow_line_is_no_failure(proxied: Proxied, timing: Timing) -> None:
    client = proxied.open()
    proxied.line.delay(0.05)

    (task_id,) = submitted(client)
    assert client.store(success(task_id, "in time"))
    assert value_of(client.load(task_id)) == "in time"
    assert value_of(client.wait(task_id, timeout=timing.within)) == "in time"
    client.forget([task_id])
    assert client.load(task_id) is None


@clause("FT-2", "FT-5")
def test_a_new_connection_finds_the_results_of_many_waits(
    proxied: Proxied, timing: Timing, capabilities: Capabilities
) -> None:
    client, direct = proxied.open(), proxied.open_direct()
    # Where records are read one by one, thousands of them take their time: that is for BT-2.
    count = 2000 if capabilities.batch else 50
    results = {task_id: number for number, task_id in enumerate(submitted(client, count))}
    collecting = start(lambda: dict(client.wait_many(list(results), timeout=6 * timing.within)))
    timing.eventually(lambda: client.stats()["waiters"] == len(results) or collecting.done())

    proxied.line.cut()
    store_for(client, direct, results)
    proxied.line.heal()

    found = collecting.result(7 * timing.within)
    assert {
        key: value_of(each) for key, each in found.items() if isinstance(each, Record)
    } == results


def is_there(client: ResultClient, task_id: str) -> bool:
    """Tell whether a task has ended, as far as `client` can read."""
    found = client.load(task_id)
    return found is not None and found.is_terminal
