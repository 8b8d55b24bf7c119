"""One fetch: look into each queue, and if nothing is there, have the first message pushed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, final

from upshot import clock
from upshot_backends.amqp.channel import Channel, Received
from upshot_backends.amqp.queues import Letter, Names, Post
from upshot_backends.amqp.standing import Standing

__all__ = ["Fetch", "Taken"]


class Taken(NamedTuple):
    """A message that was taken, the number to acknowledge it by, and the consumer that goes on."""

    tag: int
    letter: Letter
    standing: Standing | None = None


@final
class Fetch:
    """One fetch on a channel of its own. Only for the connection's thread.

    A consumer would be pushed the next message as soon as one is acknowledged, whether the worker
    wants it or not. So messages are asked for one by one, and a consumer is only there while a
    fetch waits, or as long as it is asked for the next one: see `Standing`. What comes beyond the
    limit, when messages come to several queues in the same moment, is given back.

    Args:
        channel: nobody else gets messages through it meanwhile. If `run` raises, it must not be
            used again.
        names, post: the queues on the server, and the way into them.
        queues: served fairly, in this order.
        limit: how many messages to take at most.
        standing: the consumer that is there already; None for none.
    """

    def __init__(
        self,
        channel: Channel,
        names: Names,
        post: Post,
        queues: Sequence[str],
        limit: int,
        standing: Standing | None = None,
    ) -> None:
        self._channel = channel
        self._names = names
        self._post = post
        self._queues = queues
        self._limit = limit
        self._standing = standing
        self._taken: list[Taken] = []

    async def run(self, deadline: clock.Deadline, *, is_drained: bool = False) -> list[Taken]:
        """Return what is there, at once; or else what comes first, until the deadline.

        Args:
            deadline: how long to wait; expired, to look once.
            is_drained: nothing is there, most likely: who waits need not look before.
        """
        if self._standing is not None:
            await self._stand(self._standing, deadline)
        elif not is_drained or deadline.expired:
            await self._look()
        while not self._taken and not deadline.expired:
            if self._limit == len(self._queues) == 1:
                await self._stand(None, deadline)
            else:
                await self._listen(deadline)
        surplus = self._taken[self._limit :]
        if surplus:
            again = [self._post.address(each.letter._replace(again=True)) for each in surplus]
            await self._post.send(again)
            for each in surplus:
                self._channel.ack(each.tag)
        return self._taken[: self._limit]

    async def _look(self) -> None:
        """Take from each queue in turn, until the limit is reached or all are empty."""
        waiting = deque(self._queues)
        while waiting and len(self._taken) < self._limit:
            queue = waiting.popleft()
            received = await self._channel.get(self._names.main(queue))
            if received is not None:
                await self._accept(queue, received)
                waiting.append(queue)

    async def _stand(self, standing: Standing | None, deadline: clock.Deadline) -> None:
        """Take what a consumer brings, and let it stay if that is something."""
        (queue,) = self._queues
        if standing is None:
            give_back = partial(self._post.give_back, self._channel, queue)
            standing = Standing(self._channel, self._names.main(queue), give_back)
            await standing.begin()
        while not self._taken and (received := await standing.next(deadline)) is not None:
            await self._accept(queue, received, standing)

    async def _listen(self, deadline: clock.Deadline) -> None:
        """Consume until the first message comes."""
        pushed: list[tuple[str, Received]] = []
        first = self._channel.expect()

        def push(queue: str, received: Received) -> None:
            pushed.append((queue, received))
            if not first.done():
                first.set_result(None)

        await self._channel.limit(self._limit)
        tags = [
            await self._channel.consume(self._names.main(queue), partial(push, queue))
            for queue in self._queues
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first, deadline.left())
        for tag in tags:
            await self._channel.cancel(tag)
        for queue, received in pushed:
            await self._accept(queue, received)
        if pushed:
            await self._look()  # for what `_accept` has put back, and more up to the limit

    async def _accept(
        self, queue: str, received: Received, standing: Standing | None = None
    ) -> None:
        """Take a message; one that was delivered before goes back first, with its count."""
        letter = Letter.read(received, queue)
        if not received.redelivered:
            self._taken.append(Taken(received.tag, letter, standing))
            return
        again = letter._replace(counted=letter.counted + 1, again=True)
        await self._post.send([self._post.address(again)])
        self._channel.ack(received.tag)
