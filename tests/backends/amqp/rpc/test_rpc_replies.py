"""How a record travels, and what is made of messages that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from upshot.backend import StoredRecord
from upshot.states import MAX_ATTEMPT, NEVER
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.publisher import Parcel
from upshot_backends.amqp.replies import Reply, pack, unpack

RecordMaker = Callable[..., StoredRecord]


def received(parcel: Parcel) -> Received:
    return Received(
        tag=1,
        redelivered=False,
        body=parcel.body,
        headers=parcel.headers,
        correlation_id=parcel.correlation_id,
        kind=parcel.kind,
    )


@pytest.mark.parametrize("expires", [0.001, 60.0, 86_400.0 * 365, 1e30, None])
def test_a_record_comes_out_as_it_was_packed(record: RecordMaker, expires: float | None) -> None:
    sent = record("é 🦀", b"\x00\xff", terminal=True, expires=expires)._replace(
        rank=16 * MAX_ATTEMPT
    )

    found = unpack(received(pack(sent, queue="q", persistent=True)))

    assert found is not None
    assert found[:4] == (sent.key, b"\x00\xff", 16 * MAX_ATTEMPT, NEVER)
    if expires is None or expires > 1e20:
        assert found.expires == expires or (found.expires or 0.0) > 1e12
    else:
        assert found.expires == pytest.approx(expires)
    assert found.receipt == ""


def test_a_message_does_not_outstay_its_record(record: RecordMaker) -> None:
    assert pack(record("a", expires=1.5), queue="q", persistent=True).expires == 1500
    assert pack(record("a", expires=0.0001), queue="q", persistent=True).expires == 1
    assert pack(record("a", expires=None), queue="q", persistent=True).expires is None
    # RabbitMQ closes the channel over an expiration of more than 32 bits.
    assert pack(record("a", expires=2.0**32), queue="q", persistent=True).expires is None


def test_a_message_with_a_receipt_stays_for_whoever_waits_for_it(record: RecordMaker) -> None:
    parcel = pack(record("a", expires=0.001), queue="q", receipt="mine", persistent=False)

    found = unpack(received(parcel))

    assert parcel.expires is None
    assert found is not None
    assert (found.receipt, found.expires) == ("mine", 0.001)


def test_people_who_look_into_a_queue_see_id_and_state(record: RecordMaker) -> None:
    parcel = pack(record("task-1", terminal=True), queue="q", persistent=True)
    long = pack(record("é" * 200, state="Ü" * 200), queue="q", persistent=True)

    assert (parcel.correlation_id, parcel.kind) == ("task-1", "SUCCESS")
    assert (long.correlation_id, long.kind) == (None, None)


HEADERS: dict[str, Any] = {"upshot-key": "k", "upshot-rank": 20, "upshot-barrier": 20}


def test_headers_of_others_do_no_harm() -> None:
    message = Received(1, True, b"body", {**HEADERS, "x-death": [{}], "a": None}, None, None)

    assert unpack(message) == Reply("k", b"body", 20, 20, None, "")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"upshot-key": b"\xff"},
        {"upshot-key": None},
        {"upshot-rank": "20"},
        {"upshot-rank": True},
        {"upshot-rank": -1},
        {"upshot-barrier": 1.5},
        {"upshot-barrier": None},
        {"upshot-expires": "soon"},
        {"upshot-expires": -1},
        {"upshot-expires": [60]},
    ],
    ids=repr,
)
def test_what_is_no_reply_is_told_from_one(headers: dict[str, Any]) -> None:
    changed = {**HEADERS, **headers} if headers else {}

    assert unpack(Received(1, False, b"body", changed, None, None)) is None


def test_a_receipt_of_another_kind_is_none() -> None:
    message = Received(1, False, b"body", {**HEADERS, "upshot-receipt": 7}, None, None)

    assert unpack(message) == Reply("k", b"body", 20, 20, None, "")
