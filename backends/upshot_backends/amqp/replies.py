"""How a record travels: between `StoredRecord` and a message in a reply queue.

    body                    the encoded record
    header upshot-key       where it is kept
    header upshot-rank      } the guard's two numbers,
    header upshot-barrier   } see `upshot.backend.StoredRecord`
    header upshot-expires   milliseconds from its arrival until it is gone; none: never
    header upshot-receipt   what the receiver answers to, if it is the sender too; none: nobody
    correlation-id, type    task id and state, for people who look into a queue

What comes out of a queue may have been put there by anybody.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from upshot.backend import StoredRecord
from upshot_backends.amqp.channel import Headers, Received
from upshot_backends.amqp.publisher import Parcel

__all__ = ["Reply", "pack", "reply_of", "unpack"]

_KEY: Final = "upshot-key"
_RANK: Final = "upshot-rank"
_BARRIER: Final = "upshot-barrier"
_EXPIRES: Final = "upshot-expires"
_RECEIPT: Final = "upshot-receipt"

_LONGEST_STAY: Final = 2**32 - 1  # milliseconds; RabbitMQ refuses a longer expiration of a message
_LONGEST_EXPIRY: Final = 2**62  # milliseconds; what is later is for ever, and fits 64 bits
_SHORT: Final = 255  # bytes; AMQP's limit for a property


class Reply(NamedTuple):
    """A record as it arrives.

    Attributes:
        key, body, rank, barrier: as in `StoredRecord`.
        expires: seconds from its arrival until it is gone; None for never.
        receipt: what its sender, this process, waits to hear of; "" if it does not.
    """

    key: str
    body: bytes
    rank: int
    barrier: int
    expires: float | None
    receipt: str = ""


def reply_of(record: StoredRecord) -> Reply:
    """Return a record of this process as if it had arrived."""
    return Reply(record.key, record.body, record.rank, record.barrier, record.expires)


def pack(record: StoredRecord, *, queue: str, receipt: str = "", persistent: bool) -> Parcel:
    """Return the message that brings `record` to `queue`.

    One that asks for a receipt stays in the queue as long as it takes: its sender waits.
    """
    headers: dict[str, str | int] = {
        _KEY: record.key,
        _RANK: record.rank,
        _BARRIER: record.barrier,
    }
    stay: int | None = None
    if record.expires is not None:
        milliseconds = math.ceil(max(1.0, min(record.expires * 1000, _LONGEST_EXPIRY)))
        headers[_EXPIRES] = milliseconds
        stay = milliseconds if milliseconds <= _LONGEST_STAY else None
    if receipt:
        headers[_RECEIPT] = receipt
        stay = None
    return Parcel(
        queue=queue,
        body=record.body,
        headers=headers,
        expires=stay,
        persistent=persistent,
        correlation_id=record.task_id if len(record.task_id.encode()) <= _SHORT else None,
        kind=record.state if len(record.state.encode()) <= _SHORT else None,
    )


def unpack(message: Received) -> Reply | None:
    """Return what a message brings; None if it is no reply at all."""
    key, receipt = _text(message.headers, _KEY), _text(message.headers, _RECEIPT)
    rank, barrier = _number(message.headers, _RANK), _number(message.headers, _BARRIER)
    if key is None or rank is None or barrier is None:
        return None
    expires = _number(message.headers, _EXPIRES)
    if expires is None and _EXPIRES in message.headers:
        return None  # to keep it for ever is not what was meant
    seconds = None if expires is None else expires / 1000
    return Reply(key, message.body, rank, barrier, seconds, receipt or "")


def _text(headers: Headers, name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _number(headers: Headers, name: str) -> int | None:
    value = headers.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return int(value)  # pika's 64-bit integers are of a type of their own
