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

__all__ = ["Fetch", "Taken"]


class Taken(NamedTuple):
    """A message that was taken, and the number to acknowledge it by."""

    tag: int
    letter: Letter


@final
class Fetch:
    """One fetch on a channel of its own. Only for the connection's thread.

    A consumer would be pushed the next message as soon as one is acknowledged, whether the worker
    wants it or not. So messages are asked for one by one, and a consumer is only there while a
    fetch waits. What it brings beyond the limit, when messages come to several queues in the same
    moment, is given back.

    Args:
        channel: nobody else gets messages through it meanwhile. If `run` raises, it must not be
            used again.
        names, post: the queues on the server, and the way into them.
        queues: served fairly, in this order.
        limit: how many messages to take at most.
    """

    def __init__(
        self, channel: Channel, names: Names, post: Post, queues: Sequence[str], limit: int
    ) -> None:
        self._channel = channel
        self._names = names
        self._post = post
        self._queues = queues
        self._limit = limit
        self._taken: list[Taken] = []

    async def run(self, deadline: clock.Deadline, *, is_drained: bool = False) -> list[Taken]:
        """Return what is there, at once; or else what comes first, until the deadline.

        Args:
            deadline: how long to wait; expired, to look once.
            is_drained: nothing is there, most likely: who waits need not look before.
        """
        if not is_drained or deadline.expired:
            await self._look()
        while not self._taken and not deadline.expired:
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
            if pushed and self._limit == len(tags) == 1:  # it has all that it may have unacked
                self._channel.dismiss(tag)
            else:
                await self._channel.cancel(tag)
        for queue, received in pushed:
            await self._accept(queue, received)
        if pushed:
            await self._look()  # for what `_accept` has put back, and more up to the limit

    async def _accept(self, queue: str, received: Received) -> None:
        """Take a message; one that was delivered before goes back first, with its count."""
        letter = Letter.read(received, queue)
        if not received.redelivered:
            self._taken.append(Taken(received.tag, letter))
            return
        again = letter._replace(counted=letter.counted + 1, again=True)
        await self._post.send([self._post.address(again)])
        self._channel.ack(received.tag)
