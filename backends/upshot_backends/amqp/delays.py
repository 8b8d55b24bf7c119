"""Messages with an `eta`, on their way from rest to rest until they are due.

RabbitMQ has no alarm clock for single messages, but its queues can hand on what has rested in them
for a fixed time. So a message rests in the queue with the longest time that is not too long, comes
to the queue `…/later`, and is moved from there to its next rest: each takes it closer to its `eta`,
and none beyond. Moving is done by the brokers that fetch, with a confirm before each step. The last
eighth of a second a message spends in the memory of the one who moves it, unacknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from upshot_backends.amqp.channel import Channel, Received
from upshot_backends.amqp.connection import Session
from upshot_backends.amqp.queues import DELAYS, Letter, Names, Post

__all__ = ["Delays"]

logger = logging.getLogger(__name__)

_HELD: Final = 1000
"""Messages of one queue that are held or moved at a time: as large as a batch to publish."""

_PAUSE: Final = 1.0  # seconds until messages that could not be moved are given back


@dataclass(eq=False, slots=True)
class _Held:
    """A message that is not due yet, or being moved."""

    channel: Channel
    tag: int
    letter: Letter
    timer: asyncio.TimerHandle | None = None


@final
class Delays:
    """Moves the messages with an `eta` of some queues. Only for the connections' thread."""

    def __init__(self, names: Names, post: Post) -> None:
        self._names = names
        self._post = post
        self._channels: dict[str, Channel] = {}
        self._held: set[_Held] = set()
        self._due: list[_Held] = []
        self._moving: asyncio.Task[None] | None = None

    async def attend(self, session: Session, queue: str) -> None:
        """Move the messages of `queue` from now on, as long as the session lasts.

        What is due already has been moved when this returns for the first time.
        """
        if queue in self._channels:
            return
        channel = await session.channel()
        try:
            name = self._names.later(queue)
            for _ in range(min(_HELD, await channel.declare(name, passive=True))):
                received = await channel.get(name)
                if received is None:
                    break
                self._take(channel, queue, received)
            while self._due and self._moving is not None:
                await asyncio.shield(self._moving)
            await channel.limit(_HELD)
            await channel.consume(name, partial(self._take, channel, queue))
        except BaseException:
            channel.close()
            raise
        self._channels[queue] = channel
        channel.when_ended(partial(self._forget, queue, channel))

    def count(self, queue: str) -> int:
        """Return how many messages of `queue` are held here."""
        return sum(held.letter.queue == queue for held in self._held)

    def drop(self, queue: str) -> int:
        """Remove the messages of `queue` that are held here, and return how many those were."""
        found = [held for held in self._held if held.letter.queue == queue and held.timer]
        for held in found:
            self._let_go(held)
            held.channel.ack(held.tag)
        return len(found)

    def _take(self, channel: Channel, queue: str, received: Received) -> None:
        held = _Held(channel, received.tag, Letter.read(received, queue))
        self._held.add(held)
        self._decide(held)

    def _decide(self, held: _Held) -> None:
        """Wait for a moment that is near; move the message on to what is not."""
        seconds = held.letter.due_in()
        held.timer = None
        if 0 < seconds * 1000 < DELAYS[0]:
            held.timer = asyncio.get_running_loop().call_later(seconds, self._decide, held)
            return
        self._due.append(held)
        if self._moving is None:
            self._moving = asyncio.create_task(self._move())

    async def _move(self) -> None:
        """Move what is due, batch by batch, until nothing is."""
        try:
            while self._due:
                batch, self._due = self._due, []
                await self._move_batch([held for held in batch if held.channel.ended is None])
        finally:
            self._moving = None

    async def _move_batch(self, batch: list[_Held]) -> None:
        try:
            await self._post.send([self._post.address(held.letter) for held in batch])
        except Exception as exc:  # whatever it was, the messages are still where they were
            logger.warning("messages with an eta are not moved for now: %s", exc)
            await asyncio.sleep(_PAUSE)
            self._give_back(batch)
        else:
            for held in batch:
                self._let_go(held)
                with contextlib.suppress(Exception):  # its channel has ended: it comes again
                    held.channel.ack(held.tag)

    def _give_back(self, batch: Iterable[_Held]) -> None:
        for held in batch:
            self._let_go(held)
            with contextlib.suppress(Exception):  # its channel has ended, which gives back all
                held.channel.nack(held.tag)

    def _let_go(self, held: _Held) -> None:
        self._held.discard(held)
        if held.timer is not None:
            held.timer.cancel()

    def _forget(self, queue: str, channel: Channel, _: Exception) -> None:
        if self._channels.get(queue) is channel:
            del self._channels[queue]
        for held in [held for held in self._held if held.channel is channel]:
            self._let_go(held)
