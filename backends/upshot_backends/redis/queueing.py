"""How queues, messages and deliveries stand in the arguments and answers of scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast
from urllib.parse import quote

from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot_backends.redis.driver import Argument, Reply

__all__ = ["found_in", "id_of", "lines", "message_arguments", "numbered", "parts", "quoted"]

_PART: Final = 4 * 2**20  # bytes of messages in one script call of `settle`
_SETTLED: Final = 1000  # deliveries settled by one script call
_ANY_BYTES: Final = "surrogateescape"  # for ids that somebody else has put there


def id_of(delivery: Delivery) -> bytes:
    """Return the id of a message as the server has it, also if it is no text."""
    return delivery.message_id.encode(errors=_ANY_BYTES)


_Taken = tuple[int, bytes, bytes, int, bytes]


def found_in(answer: Reply, queues: Sequence[str]) -> tuple[float, list[Delivery]]:
    """Read what `fetch.lua` answers: seconds until something is due; what was leased.

    The seconds are infinite if nothing is known to be due.
    """
    due_in, *taken = cast("tuple[bytes, *tuple[_Taken, ...]]", answer or (b"",))
    return float(due_in) if due_in else math.inf, [
        Delivery(
            message_id=message_id.decode(errors=_ANY_BYTES),
            queue=queues[number - 1],
            body=body,
            deliveries=deliveries,
            token=token.decode(),
        )
        for number, message_id, body, deliveries, token in taken
    ]


def quoted(name: str) -> str:
    """Return a name that holds no "/" and no line break."""
    return quote(name, safe="", errors="surrogatepass")


def lines(queues: Iterable[str]) -> str:
    """Return the names of queues in one argument, a line each."""
    return "\n".join(quoted(queue) for queue in queues)


def numbered(queues: Iterable[str]) -> dict[str, int]:
    """Return each distinct queue with its number, from 1 as Lua counts."""
    return {queue: number for number, queue in enumerate(dict.fromkeys(queues), 1)}


def message_arguments(message: QueuedMessage, queues: Mapping[str, int]) -> tuple[Argument, ...]:
    """Return what the scripts take for one message."""
    eta = "" if message.eta is None else repr(message.eta)
    return queues[message.queue], message.message_id, message.body, message.priority, eta


def parts(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Cut a batch, in order, into parts that a script ends quickly."""
    part: list[Settlement] = []
    size = 0
    for settlement in settlements:
        length = len(settlement.message.body) if settlement.message else 0
        if part and (size + length > _PART or len(part) == _SETTLED):
            yield part
            part, size = [], 0
        part.append(settlement)
        size += length
    if part:
        yield part
