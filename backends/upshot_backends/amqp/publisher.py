"""Publishing with confirms, many messages at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, final

from pika import spec  # type: ignore[import-untyped]

from upshot_backends.amqp.channel import Channel, Headers
from upshot_backends.amqp.driver import RefusedForNowError, emit, longest_body
from upshot_backends.amqp.frames import publication

__all__ = ["Parcel", "Publisher", "Settled"]

Settled = Callable[[list[bool] | None, Exception | None], None]
"""Takes what became of a batch: for each parcel whether it was routed, or what went wrong."""

_WINDOW: Final = 8 * 2**20
"""Bytes on their way, unconfirmed: enough to keep the server busy, little enough for our memory."""

_TURN: Final = 100  # messages sent before the loop gets a turn, to answer heartbeats and others


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A message to publish to a queue, through the default exchange.

    Attributes:
        queue: its whole name on the server.
        body: opaque.
        headers: kept with the message.
        priority: 0 to the queue's `x-max-priority`; None for queues without priorities.
        expires: milliseconds after which the queue drops it; None for never.
        persistent: a durable queue keeps it through a restart.
        correlation_id, kind: AMQP's `correlation-id` and `type`, at most 255 bytes each.
    """

    queue: str
    body: bytes
    headers: Headers = field(default_factory=dict[str, Any])
    priority: int | None = None
    expires: int | None = None
    persistent: bool = True
    correlation_id: str | None = None
    kind: str | None = None


@final
class _Batch:
    """The messages of one `publish`, waiting for their confirms."""

    __slots__ = ("_settle", "_waiting", "is_over", "routed")

    def __init__(self, count: int, settle: Settled) -> None:
        self.routed = [True] * count
        self.is_over = False
        self._waiting = count
        self._settle = settle

    def confirm(self) -> None:
        """Note that the server has one of them."""
        self._waiting -= 1
        if not self._waiting and not self.is_over:
            self.is_over = True
            self._settle(self.routed, None)

    def fail(self, why: Exception) -> None:
        """Note that it is all over."""
        if not self.is_over:
            self.is_over = True
            self._settle(None, why)


@final
class Publisher:
    """Publishes with confirms on a channel of its own; any number of batches at a time.

    Args:
        channel: nobody else uses it.
        is_unblocked: set while the server takes messages.
    """

    def __init__(self, channel: Channel, is_unblocked: asyncio.Event) -> None:
        self.channel = channel
        self._is_unblocked = is_unblocked
        self._count = 0
        self._size = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._unconfirmed: dict[int, tuple[_Batch, int, int]] = {}
        self._number: int = channel.raw.channel_number
        self._longest = longest_body(channel.raw)
        channel.raw.add_on_return_callback(self._on_return)
        channel.when_ended(self._on_end)

    @classmethod
    async def open(cls, connection: Any, is_unblocked: asyncio.Event) -> Publisher:
        """Open the channel and switch confirms on."""
        channel = await Channel.open(connection)
        publisher = cls(channel, is_unblocked)
        await channel.ask(partial(channel.raw.confirm_delivery, publisher._on_frame))
        connection.confirms[publisher._number] = publisher._on_confirm
        channel.when_ended(lambda _: connection.confirms.pop(publisher._number, None))
        return publisher

    def begin(self, parcels: Sequence[Parcel], settled: Settled) -> bool:
        """Send all at once, and have `settled` called as `publish` returns, or raises.

        Returns False, and has sent nothing, if they are too many, or the server takes none now.
        """
        if not 0 < len(parcels) <= _TURN or not self._takes_more():
            return False
        if len(parcels) > 1 and sum(len(parcel.body) for parcel in parcels) > _WINDOW:
            return False
        batch = _Batch(len(parcels), settled)
        for position, parcel in enumerate(parcels):
            self._send(parcel, batch, position)
        return True

    async def publish(self, parcels: Sequence[Parcel]) -> list[bool]:
        """Send all, and return when the server has each one safe.

        Tells for each parcel whether it came into its queue; False: there is no such queue. While
        the server blocks us, nothing more is sent. Who stops waiting cannot know what arrived.

        Raises:
            RefusedForNowError: the server could not keep one of them.
            AMQPError: the channel or the connection ended.
        """
        if not parcels:
            return []
        answer: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        batch = _Batch(len(parcels), partial(_settle, answer))
        try:
            for position, parcel in enumerate(parcels):
                if not self._takes_more():
                    await self._has_room.wait()
                    await self._is_unblocked.wait()
                elif position % _TURN == _TURN - 1:
                    await asyncio.sleep(0)
                self._send(parcel, batch, position)
            return await answer
        finally:
            answer.cancel()  # nobody waits for it any more, if it is still to come

    def _takes_more(self) -> bool:
        return self._has_room.is_set() and self._is_unblocked.is_set()

    def _send(self, parcel: Parcel, batch: _Batch, position: int) -> None:
        self.channel.check()
        tag = self._count + 1
        size = len(parcel.body)
        frames = publication(
            self._number,
            parcel.queue,
            parcel.body,
            longest=self._longest,
            number=tag,  # a returned message is told from its like by this number
            headers=parcel.headers,
            persistent=parcel.persistent,
            priority=parcel.priority,
            expires=parcel.expires,
            correlation_id=parcel.correlation_id,
            kind=parcel.kind,
        )
        emit(self.channel.raw, frames)
        self._count = tag
        self._unconfirmed[tag] = (batch, position, size)
        self._size += size
        if self._size > _WINDOW:
            self._has_room.clear()

    def _on_return(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        """Note an unroutable message; its confirm comes next."""
        found = self._unconfirmed.get(int(properties.message_id))
        if found is not None:
            batch, position, _ = found
            batch.routed[position] = False

    def _on_frame(self, frame: Any) -> None:
        method = frame.method
        refused = isinstance(method, spec.Basic.Nack)
        self._on_confirm(method.delivery_tag, method.multiple, refused=refused)

    def _on_confirm(self, last: int, multiple: bool, *, refused: bool = False) -> None:
        tags = [last]
        if multiple:
            tags = list(itertools.takewhile(lambda tag: tag <= last, self._unconfirmed))
        for tag in tags:
            self._confirm(tag, refused)

    def _confirm(self, tag: int, refused: bool) -> None:
        found = self._unconfirmed.pop(tag, None)
        if found is None:
            return
        batch, _, size = found
        self._size -= size
        if self._size <= _WINDOW:
            self._has_room.set()
        if refused:
            batch.fail(RefusedForNowError("the server could not keep a message"))
        else:
            batch.confirm()

    def _on_end(self, why: Exception) -> None:
        batches = [batch for batch, _, _ in self._unconfirmed.values()]
        self._unconfirmed.clear()
        self._has_room.set()
        for batch in batches:
            batch.fail(why)


def _settle(
    answer: asyncio.Future[list[bool]], routed: list[bool] | None, error: Exception | None
) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(routed or [])
