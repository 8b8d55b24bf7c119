"""Messages with an `eta`, on their way from rest to rest until they are due.

RabbitMQ has no alarm clock for single messages. (It can hand on what has lain in a queue for a
time, but classic queues lose messages there when the server is killed, and quorum queues may keep
them for ever: rabbitmq-server issues 37 and 12625.) So the brokers that fetch do it, each step
confirmed before the message is removed from where it was.

A message that is not due within a second rests in the queue with the longest time that is not too
long. All that lies there has to rest equally long, so the first message is the first to move on,
and only that one is looked at: when its rest is over, and at least once in the time that a rest
takes. The last second a message spends in the memory of the one who moves it, unacknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from upshot import clock
from upshot_backends.amqp.channel import Channel, Received
from upshot_backends.amqp.connection import Session
from upshot_backends.amqp.queues import DELAYS, Letter, Names, Post, moment

__all__ = ["Delays"]

logger = logging.getLogger(__name__)

_HELD: Final = 2000
"""Messages of one queue that are held for their last second: with more per second some are late."""

_BATCH: Final = 200  # messages that are moved on at a time
_PAUSE: Final = 1.0  # seconds until messages that could not be moved are tried again


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
        self._served: dict[str, Channel] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._held: set[_Held] = set()
        self._due: list[_Held] = []
        self._moving: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def attend(self, session: Session, queue: str) -> None:
        """Move the messages of `queue` from now on, as long as the session lasts.

        Of what is due already, a first batch has been moved when this returns for the first time.
        """
        if queue in self._served:
            return
        async with self._lock:
            if queue not in self._served:
                await self._begin(session, queue)

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

    async def _begin(self, session: Session, queue: str) -> None:
        looking, holding = await session.channel(), await session.channel()
        try:
            pauses = [await self._look(looking, queue, position) for position in range(len(DELAYS))]
            later = self._names.later(queue)
            for _ in range(min(_BATCH, await holding.declare(later, passive=True))):
                received = await holding.get(later)
                if received is None:
                    break
                self._take(holding, queue, received)
            if self._moving is not None:
                await asyncio.shield(self._moving)
            await holding.limit(_HELD)
            await holding.consume(later, partial(self._take, holding, queue))
        except BaseException:
            looking.close()
            holding.close()
            raise
        self._served[queue] = holding
        holding.when_ended(partial(self._forget, queue, holding))
        watching = asyncio.create_task(self._watch(looking, queue, pauses))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    # -- what rests -------------------------------------------------------------------------------

    async def _watch(self, channel: Channel, queue: str, pauses: list[float]) -> None:
        """Look at the queues where messages rest, each when it is time, until the channel ends."""
        times = [clock.monotonic() + pause for pause in pauses]
        while channel.ended is None:
            soonest = min(times)
            await asyncio.sleep(soonest - clock.monotonic())
            position = times.index(soonest)
            try:
                pause = await self._look(channel, queue, position)
            except Exception as exc:
                logger.debug("delayed messages are not watched for now: %s", exc)
                pause = _PAUSE
            times[position] = clock.monotonic() + pause
        holding = self._served.get(queue)
        if holding is not None:
            holding.close()  # the next fetch begins anew

    async def _look(self, channel: Channel, queue: str, position: int) -> float:
        """Move on what has rested; return the seconds until the next look."""
        name, pause = self._names.rests(queue)[position], float(DELAYS[position])
        batch: list[_Held] = []
        while len(batch) < _BATCH:
            received = await channel.get(name)
            if received is None:
                break
            left = (moment(received.headers.get("until")) or 0.0) - clock.now()
            if left > 0:
                channel.nack(received.tag)
                pause = min(pause, left)
                break
            batch.append(_Held(channel, received.tag, Letter.read(received, queue)))
        else:
            pause = 0.0
        if batch and not await self._move_on(batch):
            return _PAUSE
        return pause

    # -- the last second --------------------------------------------------------------------------

    def _take(self, channel: Channel, queue: str, received: Received) -> None:
        held = _Held(channel, received.tag, Letter.read(received, queue))
        self._held.add(held)
        self._decide(held)

    def _decide(self, held: _Held) -> None:
        """Wait for a moment that is near; move on what is due, or far."""
        seconds = held.letter.due_in()
        held.timer = None
        if 0 < seconds < DELAYS[0]:
            held.timer = asyncio.get_running_loop().call_later(seconds, self._decide, held)
            return
        self._due.append(held)
        if self._moving is None:
            self._moving = asyncio.create_task(self._move())

    async def _move(self) -> None:
        """Move what is due, batch by batch, until nothing is."""
        try:
            while self._due:
                batch, self._due = self._due[:_BATCH], self._due[_BATCH:]
                alive = [held for held in batch if held.channel.ended is None]
                if alive and not await self._move_on(alive):
                    await asyncio.sleep(_PAUSE)
        finally:
            self._moving = None

    async def _move_on(self, batch: list[_Held]) -> bool:
        """Publish messages where they belong now, and remove them; False gives them back."""
        try:
            await self._post.send([self._post.address(held.letter) for held in batch])
        except Exception as exc:  # whatever it was, the messages are still where they were
            logger.warning("messages with an eta are not moved for now: %s", exc)
            self._end(batch, moved=False)
            return False
        self._end(batch, moved=True)
        return True

    def _end(self, batch: Iterable[_Held], *, moved: bool) -> None:
        for held in batch:
            self._let_go(held)
            with contextlib.suppress(Exception):  # its channel has ended, which gives back all
                if moved:
                    held.channel.ack(held.tag)
                else:
                    held.channel.nack(held.tag)

    def _let_go(self, held: _Held) -> None:
        self._held.discard(held)
        if held.timer is not None:
            held.timer.cancel()

    def _forget(self, queue: str, channel: Channel, _: Exception) -> None:
        if self._served.get(queue) is channel:
            del self._served[queue]
        for held in [held for held in self._held if held.channel is channel]:
            self._let_go(held)
