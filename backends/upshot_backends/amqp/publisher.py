"""Publishing with confirms, many messages at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, final

import pika  # type: ignore[import-untyped]
from pika import spec

from upshot_backends.amqp.channel import Channel, Headers
from upshot_backends.amqp.driver import RefusedForNowError

__all__ = ["Parcel", "Publisher"]

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


@dataclass(slots=True)
class _Batch:
    """The messages of one `publish`, waiting for their confirms."""

    answer: asyncio.Future[None]
    routed: list[bool]
    waiting: int


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
        channel.raw.add_on_return_callback(self._on_return)
        channel.when_ended(self._on_end)

    @classmethod
    async def open(cls, connection: Any, is_unblocked: asyncio.Event) -> Publisher:
        """Open the channel and switch confirms on."""
        channel = await Channel.open(connection)
        publisher = cls(channel, is_unblocked)
        await channel.ask(partial(channel.raw.confirm_delivery, publisher._on_confirm))
        return publisher

    async def publish(self, parcels: Sequence[Parcel]) -> list[bool]:
        """Send all, and return when the server has each one safe.

        Tells for each parcel whether it came into its queue; False: there is no such queue. While
        the server blocks us, nothing more is sent. Who stops waiting cannot know what arrived.

        Raises:
            RefusedForNowError: the server could not keep one of them.
            AMQPError: the channel or the connection ended.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch = _Batch(answer, [True] * len(parcels), len(parcels))
        try:
            for position, parcel in enumerate(parcels):
                if not self._has_room.is_set() or not self._is_unblocked.is_set():
                    await self._has_room.wait()
                    await self._is_unblocked.wait()
                elif position % _TURN == _TURN - 1:
                    await asyncio.sleep(0)
                self._send(parcel, batch, position)
            if parcels:
                await answer
        finally:
            answer.cancel()  # nobody waits for it any more, if it is still to come
        return batch.routed

    def _send(self, parcel: Parcel, batch: _Batch, position: int) -> None:
        self.channel.check()
        tag = self._count + 1
        properties = pika.BasicProperties(
            # A returned message is told from its like by this number.
            message_id=str(tag),
            headers=dict(parcel.headers),
            priority=parcel.priority,
            delivery_mode=2 if parcel.persistent else 1,
            expiration=None if parcel.expires is None else str(parcel.expires),
            correlation_id=parcel.correlation_id,
            type=parcel.kind,
        )
        self.channel.raw.basic_publish("", parcel.queue, parcel.body, properties, mandatory=True)
        size = len(parcel.body)
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

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if method.multiple:
            tags: list[int] = []
            for tag in self._unconfirmed:
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        else:
            tags = [method.delivery_tag]
        refused = isinstance(method, spec.Basic.Nack)
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
        batch.waiting -= 1
        if batch.answer.done():
            return
        if refused:
            batch.answer.set_exception(RefusedForNowError("the server could not keep a message"))
        elif not batch.waiting:
            batch.answer.set_result(None)

    def _on_end(self, why: Exception) -> None:
        for batch, _, _ in self._unconfirmed.values():
            if not batch.answer.done():
                batch.answer.set_exception(why)
        self._unconfirmed.clear()
        self._has_room.set()
