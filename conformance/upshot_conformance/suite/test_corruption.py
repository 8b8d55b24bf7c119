"""Bytes that are no record: an error for their id, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from upshot.client import ResultClient
from upshot.errors import CorruptRecordError
from upshot.record import Record
from upshot.states import NEVER
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.suite.sending import everybody_waits, values
from upshot_conformance.timing import Timing

Damage = Callable[[bytes], bytes]

DAMAGES: dict[str, Damage] = {
    "foreign text": lambda body: b"something that somebody else keeps here",
    "foreign bytes": lambda body: b"\xff\xfe\x00\x80" * 100,
    "one byte": lambda body: b"\x00",
    "another format": lambda body: b'{"status": "SUCCESS", "result": 1}',
    "a later version": lambda body: bytes([body[0] + 1]) + body[1:],
    "half of a record": lambda body: body[: len(body) // 2],
    "a record without its last byte": lambda body: body[:-1],
    "a record with a byte more": lambda body: body + b"\n",
    "a changed record": lambda body: body.replace(b"readable", b"readably"),
    "another id's record": lambda body: success("somebody else's", 1).encode(),
}

every_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


def spoil(client: ResultClient, task_id: str, damage: Damage, *, over: bool = False) -> None:
    """Store under an id what nobody can read, as the result of its task.

    Args:
        client: below its surface, where bytes are opaque.
        task_id: whose record it takes the place of.
        damage: makes bad bytes of good ones.
        over: also over a record that is not to be replaced.
    """
    sealed = client.encode(success(task_id, "readable"))
    spoilt = sealed._replace(body=damage(sealed.body))
    if over:
        spoilt = spoilt._replace(rank=NEVER)
    assert list(client.backend.store([spoilt], 10.0)) == [True]


def foreign(body: bytes) -> bytes:
    """What somebody else's program may have stored in place of a record."""
    return b"not of ours: " + body[:8]


@clause("FT-4")
@every_damage
def test_what_is_no_record_is_an_error_of_its_own_id(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle, damage: Damage
) -> None:
    good, bad, other = new_id(), new_id(), new_id()
    client.store_many([success(good, 1), success(other, 2)])
    spoil(client, bad, damage)

    for each in (client, second_client):
        with pytest.raises(CorruptRecordError) as caught:
            each.load(bad)
        assert caught.value.task_id == bad
        found = each.load_many([good, bad, new_id(), bad, other])
        assert isinstance(found[0], Record)
        assert isinstance(found[1], CorruptRecordError), (
            "damage was taken for a record, or for none"
        )
        assert isinstance(found[3], CorruptRecordError)
        assert (value_of(found[0]), found[2]) == (1, None)
        assert isinstance(found[4], Record)
        with pytest.raises(CorruptRecordError):
            each.wait(bad, timeout=0)
        with pytest.raises(CorruptRecordError):
            handle(bad, each).get(timeout=0)
        assert value_of(each.load(good)) == 1


@clause("FT-4")
@every_damage
def test_what_is_no_record_can_be_forgotten_and_its_id_used_anew(
    client: ResultClient, damage: Damage
) -> None:
    bad = new_id()
    spoil(client, bad, damage)

    client.forget([bad])

    assert client.load(bad) is None
    assert client.store(success(bad, "good again"))
    assert value_of(client.load(bad)) == "good again"


@clause("FT-4")
def test_damage_in_the_place_of_a_good_record_is_seen(
    client: ResultClient, second_client: ResultClient
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1))
    assert value_of(second_client.load(task_id)) == 1

    spoil(client, task_id, foreign, over=True)

    for each in (client, second_client):
        with pytest.raises(CorruptRecordError):
            each.load(task_id)


@clause("FT-4")
@every_damage
def test_a_wait_for_what_is_no_record_ends_with_the_error_and_no_other_wait_does(
    client: ResultClient, second_client: ResultClient, timing: Timing, damage: Damage
) -> None:
    bad, good = new_id(), new_id()
    waits = everybody_waits(client, [bad, good], timing, timeout=3 * timing.within)

    spoil(second_client, bad, damage)
    second_client.store(success(good, "unharmed"))

    for found in values(waits, 4 * timing.within):
        assert found == {bad: "CorruptRecordError", good: "unharmed"}


@clause("FT-4")
def test_waits_go_on_after_many_that_ended_with_damage(
    client: ResultClient, second_client: ResultClient, timing: Timing
) -> None:
    for _ in range(3):
        bad, good = [new_id() for _ in range(20)], new_id()
        second_client.store_many([unfinished(each) for each in [*bad, good]])
        for task_id in bad[::2]:  # some are there before anybody waits, some come meanwhile
            spoil(second_client, task_id, foreign)
        waits = everybody_waits(
            client, [*bad, good], timing, timeout=3 * timing.within, ended=len(bad) // 2
        )
        for task_id in bad[1::2]:
            spoil(second_client, task_id, foreign)
        second_client.store(success(good, "unharmed"))

        expected = dict.fromkeys(bad, "CorruptRecordError") | {good: "unharmed"}
        assert values(waits, 4 * timing.within) == [expected] * len(waits)

    timing.eventually(lambda: not client.stats()["waiters"])
    stats = client.stats()
    assert (stats["keys"], stats["waiters"], stats["threads"]) == (0, 0, 1)


@clause("FT-4")
@pytest.mark.needs("scan")
def test_a_listing_leaves_out_what_is_no_record(client: ResultClient) -> None:
    good, bad = [new_id() for _ in range(3)], new_id()
    client.store_many([success(task_id, task_id) for task_id in good])
    spoil(client, bad, foreign)

    assert {record.task_id for record in client.scan()} == set(good)
