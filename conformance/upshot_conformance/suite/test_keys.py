"""Idempotency keys: who holds one, for how long, and who sends if the holder does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from upshot import clock
from upshot.backend import Backend, Capabilities
from upshot.claims import Claims
from upshot.client import ResultClient
from upshot.errors import CorruptRecordError, UnsupportedError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients
from upshot_conformance.harness import Harness
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.claims import claiming
from upshot_conformance.suite.keyed import (
    NAME,
    assert_keeps_keys,
    claim_of,
    send,
    send_all,
    take,
)
from upshot_conformance.suite.lives import MOMENT, Life, gone_in_time
from upshot_conformance.suite.spy import Spy
from upshot_conformance.timing import Timing

HOSTILE = ("invoice-42", "INVOICE-42", "invoice-42 ", "a:b", "a#b", "a=b", "%", "*", "é", "x" * 255)
"""Keys that some service takes for another, or cannot take at all."""

AGES = 3600.0
"""Seconds; no call takes so long."""


@pytest.fixture
def claims(client: ResultClient) -> Claims:
    """The keys of the client's namespace, where there can be any."""
    assert_keeps_keys(client)
    return client.claims


# -- KY-1: one holder -----------------------------------------------------------------------------


@clause("KY-1")
@pytest.mark.needs("atomic")
def test_the_first_claim_holds_a_key_for_every_client(
    claims: Claims, client: ResultClient, second_client: ResultClient
) -> None:
    first = claim_of("invoice-42")

    (granted,) = take(client, first)
    claims.mark_sent([granted])

    assert granted == first._replace(is_ours=True)
    for each in (client, second_client):
        (held,) = take(each, claim_of("invoice-42"))
        assert (held.task_id, held.is_ours, held.is_sent) == (first.task_id, False, True)


@clause("KY-1")
@pytest.mark.needs("atomic")
@pytest.mark.parametrize("shared", [True, False], ids=["one-client", "own-clients"])
def test_one_of_many_threads_is_granted_a_key_and_the_others_learn_its_id(
    claims: Claims, client: ResultClient, clients: Clients, within: float, shared: bool
) -> None:
    callers = [client if shared else clients.open() for _ in range(8)]
    for turn in range(12):
        wanted = [claim_of(f"key {turn}") for _ in callers]

        ids = together(
            [partial(send, each, claim) for each, claim in zip(callers, wanted, strict=True)],
            within=within,
        )

        assert len(set(ids)) == 1, f"{len(set(ids))} of {len(ids)} were granted the key"
        assert ids[0] in {claim.task_id for claim in wanted}


@clause("KY-1")
@pytest.mark.needs("atomic")
@pytest.mark.needs("shared")
def test_one_of_two_processes_is_granted_each_key(
    claims: Claims, target: Target, client: ResultClient, namespace: str
) -> None:
    keys = [new_id() for _ in range(50)]
    with (
        elsewhere.Other(target, namespace, "claim", keys=keys, name="one") as one,
        elsewhere.Other(target, namespace, "claim", keys=keys, name="two") as two,
    ):
        rivals = start(two.finish)
        first = one.finish()
        second = rivals.result(elsewhere.SECONDS)

    assert first == second
    assert {holder.partition(" ")[2] for holder in first} == set(keys)
    assert [send(client, claim_of(key)) for key in keys] == first


@clause("KY-1")
@pytest.mark.needs("atomic")
def test_a_batch_is_granted_what_is_free_and_learns_the_rest(
    claims: Claims, client: ResultClient, second_client: ResultClient
) -> None:
    taken = {key: send(second_client, claim_of(key)) for key in ("b", "d")}
    wanted = [claim_of(key) for key in ("a", "b", "c", "d", "a", "b")]

    held = take(client, *wanted)

    assert [each.is_ours for each in held] == [True, False, True, False, False, False]
    ids = {"a": wanted[0].task_id, "c": wanted[2].task_id, **taken}
    assert [each.task_id for each in held] == [ids[each.key] for each in wanted]


@clause("KY-1")
@pytest.mark.needs("atomic")
def test_batches_that_overlap_in_opposite_orders_wait_for_each_other_only_briefly(
    claims: Claims, clients: Clients, within: float
) -> None:
    callers, keys = [clients.open(timeout=60.0) for _ in range(4)], [new_id() for _ in range(40)]
    orders = [keys, keys[::-1], keys[20:] + keys[:20], keys[::-1]]

    answers = together(
        [
            partial(send_all, each, [claim_of(key) for key in order])
            for each, order in zip(callers, orders, strict=True)
        ],
        within=4 * within,  # far less than the time after which claims are taken over
    )

    holders = [{claim.key: claim.task_id for claim in held} for held in answers]
    granted = [claim.key for held in answers for claim in held if claim.is_ours]
    assert holders == holders[:1] * len(callers)
    assert sorted(granted) == sorted(keys)


@clause("KY-1")
@pytest.mark.needs("atomic")
def test_what_is_granted_is_told_before_others_are_waited_for(
    claims: Claims, second_client: ResultClient
) -> None:
    (other,) = take(second_client, claim_of("theirs"))
    mine = claim_of("mine")

    rounds = claims.take([claim_of("theirs"), mine])
    first = next(rounds)
    claims.mark_sent([claim for _, claim in first])
    claims.mark_sent([other])
    rest = [each for settled in rounds for each in settled]

    assert first == [(1, mine._replace(is_ours=True))], "who waits for others keeps them waiting"
    assert [(place, claim.task_id) for place, claim in rest] == [(0, other.task_id)]


@clause("KY-1", "CP-2")
def test_what_cannot_keep_keys_refuses_them_before_any_io(
    target: Target, client: ResultClient, clients: Clients
) -> None:
    lacking: list[dict[str, Any]] = [
        {"atomic": False}, {"intermediate": False}, {"expiry_resolution": None}
    ]  # fmt: skip
    refusing: list[Callable[[], Backend]] = [claiming(target, **each) for each in lacking]
    if client.backend.reply_to:
        refusing.append(target.make)
    for make in refusing:
        spy = Spy.above(make())
        opened = clients.open(make=partial(_itself, spy))

        with pytest.raises(UnsupportedError):
            take(opened, claim_of("any"))
        assert spy.calls == []


def _itself(backend: Backend) -> Backend:
    return backend


# -- KY-2: for its time ---------------------------------------------------------------------------


@clause("KY-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("atomic")
@pytest.mark.parametrize("is_sent", [True, False], ids=["sent", "open"])
def test_a_key_is_held_for_its_time_and_then_free(
    claims: Claims,
    client: ResultClient,
    clients: Clients,
    capabilities: Capabilities,
    timing: Timing,
    is_sent: bool,
) -> None:
    first, patient = claim_of("k", expires=4 * MOMENT), clients.open(timeout=60.0)
    began = clock.monotonic()
    (held,) = take(client, first)
    if is_sent:
        claims.mark_sent([held])
    ended = clock.monotonic()
    late = (capabilities.expiry_resolution or 0.0) + capabilities.visibility
    kept = Life(began + 4 * MOMENT - 0.005, ended + 4 * MOMENT + late + timing.jitter)

    if is_sent:
        gone_in_time(lambda: send(client, claim_of("k")) == first.task_id, kept, timing)
    else:
        assert send(patient, claim_of("k")) != first.task_id, "an open claim outlived its time"
        assert clock.monotonic() >= kept.earliest


@clause("KY-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("atomic")
def test_a_key_is_held_whatever_becomes_of_its_task(
    claims: Claims, client: ResultClient, second_client: ResultClient
) -> None:
    task_id = send(client, claim_of("forgotten"))
    client.store(success(task_id, "paid"))
    assert send(second_client, claim_of("forgotten")) == task_id

    client.forget([task_id, "forgotten", NAME])

    assert client.load(task_id) is None
    assert send(second_client, claim_of("forgotten")) == task_id


@clause("KY-2")
@pytest.mark.needs("expiry_resolution")
@pytest.mark.needs("atomic")
def test_a_key_without_a_time_has_none_in_the_service(
    claims: Claims, client: ResultClient, harness: Harness, namespace: str
) -> None:
    send(client, claim_of("for ever", expires=None))
    send(client, claim_of("for a while"))

    times = [harness.ttl(name) for name in harness.raw_objects(namespace)]

    assert len(times) == 2
    assert times.count(None) == 1


@clause("KY-2")
@pytest.mark.needs("atomic")
def test_a_released_key_is_free_and_no_other_is(
    claims: Claims, client: ResultClient, second_client: ResultClient
) -> None:
    ids = {key: send(client, claim_of(key)) for key in HOSTILE}

    for _ in range(2):  # again and again is harmless
        second_client.claims.release(NAME, "invoice-42")

    free = [key for key in HOSTILE if send(client, claim_of(key)) != ids[key]]
    assert free == ["invoice-42"]


# -- KY-3: not among the records ------------------------------------------------------------------


@clause("KY-3")
@pytest.mark.needs("atomic")
def test_no_id_reads_waits_for_or_forgets_a_claim(claims: Claims, client: ResultClient) -> None:
    ids = {key: send(client, claim_of(key)) for key in HOSTILE}
    guesses = [*HOSTILE, *ids.values(), NAME, f"={NAME}"]

    assert client.load_many(guesses) == [None] * len(guesses)
    client.store_many([success(key, key) for key in HOSTILE])
    assert [value_of(loaded_of(client, key)) for key in HOSTILE] == list(HOSTILE)
    client.forget(guesses)

    assert {key: send(client, claim_of(key)) for key in HOSTILE} == ids


def loaded_of(client: ResultClient, task_id: str) -> Record:
    """Return the record of an id, which must be there."""
    record = client.load(task_id)
    assert record is not None
    return record


@clause("KY-3")
@pytest.mark.needs("scan")
@pytest.mark.needs("atomic")
def test_a_listing_has_no_claims(claims: Claims, client: ResultClient, within: float) -> None:
    for key in HOSTILE:
        send(client, claim_of(key))
    take(client, claim_of("open"))
    client.store_many([success("plain", 1), success("hashed " * 20, 2)])

    listed = sorted(record.task_id for record in client.scan())

    assert listed == sorted(["plain", "hashed " * 20])


@clause("KY-3")
@pytest.mark.needs("atomic")
def test_keys_of_other_tasks_and_namespaces_are_others(
    claims: Claims, client: ResultClient, clients: Clients, namespace: str
) -> None:
    names = ["shop.charge", "shop.charge2", "shop", "charge", "é", "x" * 255]
    spaces = [client, *(clients.open(namespace=namespace + end) for end in ("a", "a=", "é", "%"))]

    ids = [send(space, claim_of(key, name=name)) for space in spaces
           for name in names for key in ("k", "2k", "é", NAME)]  # fmt: skip

    assert len(set(ids)) == len(ids), "one key was taken for another"


@clause("KY-3")
@pytest.mark.needs("atomic")
def test_bytes_that_are_no_claim_are_told_for_their_key_alone(
    claims: Claims, client: ResultClient, timing: Timing
) -> None:
    other = claims.sealed(claim_of("another")).body
    rubbish = [b"", b"x", other, client.encode(success("bad", 1)).body, b"u2" + bytes(10_000)]
    for body in rubbish:
        sealed = claims.sealed(claim_of("bad"))._replace(
            body=body, rank=2**31 - 1, barrier=2**31 - 1
        )
        assert list(client.backend.store([sealed], timing.within)) == [True]

        with pytest.raises(CorruptRecordError, match=r"key 'bad' of shop.charge"):
            take(client, claim_of("bad"))

        send(client, claim_of("good"))
        claims.release(NAME, "bad")
    assert take(client, claim_of("bad"))[0].is_ours


# -- KY-4: what was claimed and not sent ----------------------------------------------------------


@clause("KY-4")
@pytest.mark.needs("atomic")
def test_a_claim_waits_for_its_holder_to_send(
    claims: Claims, client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    (held,) = take(client, claim_of("k"))
    waiting = start(partial(send, second_client, claim_of("k")))

    assert timing.throughout(lambda: not waiting.done()), "nobody waited for the holder to send"
    claims.mark_sent([held])

    assert waiting.result(timing.within) == held.task_id


@clause("KY-4")
@pytest.mark.needs("atomic")
def test_a_key_that_is_released_while_it_is_waited_for_is_granted(
    claims: Claims, client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    take(client, claim_of("k"))
    mine = claim_of("k")
    waiting = start(partial(send, second_client, mine))
    assert timing.throughout(lambda: not waiting.done())

    claims.release(NAME, "k")

    assert waiting.result(timing.within) == mine.task_id


@clause("KY-4")
@pytest.mark.needs("atomic")
@pytest.mark.parametrize("age", [AGES, -AGES], ids=["old", "of-a-clock-that-is-ahead"])
def test_one_of_many_takes_over_for_the_same_id(
    claims: Claims, client: ResultClient, clients: Clients, timing: Timing, age: float
) -> None:
    callers = [clients.open(timeout=1.0 if age < 0 else 5.0) for _ in range(6)]
    for turn in range(1 if age < 0 else 6):
        lost = claim_of(f"lost {turn}", age=age)
        take(client, lost)
        taken = together(
            [partial(takes_over, caller, f"lost {turn}") for caller in callers],
            within=timing.within + 5.0,
        )

        assert {task_id for task_id, _ in taken} == {lost.task_id}
        assert [sent for _, sent in taken].count(True) == 1, "not exactly one sends"


def takes_over(client: ResultClient, key: str) -> tuple[str, bool]:
    """Call with a key; return the id that holds it, and whether this call sends."""
    (held,) = send_all(client, [claim_of(key)])
    return held.task_id, held.is_ours


@clause("KY-4")
@pytest.mark.needs("atomic")
def test_a_holder_that_comes_late_changes_nothing(
    claims: Claims, client: ResultClient, second_client: ResultClient
) -> None:
    (slow,) = take(client, claim_of("k", age=AGES))
    (over,) = take(second_client, claim_of("k"))
    assert (over.task_id, over.is_ours, over.attempt) == (slow.task_id, True, 2)

    claims.mark_sent([slow])
    second_client.claims.mark_sent([over])

    (held,) = take(client, claim_of("k"))
    assert (held.task_id, held.attempt, held.is_sent) == (slow.task_id, 2, True)
