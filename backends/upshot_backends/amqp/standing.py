"""A consumer that has one message at a time, and stays while that is worked on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import final

from upshot import clock
from upshot_backends.amqp.channel import Channel, Received

__all__ = ["Standing"]


@final
class Standing:
    """A consumer of one queue: the next message comes when the one before is acknowledged.

    Whoever does not want the next one ends it before that. Only for the connection's thread.

    Args:
        channel: nobody else gets messages through it meanwhile.
        queue: its name on the server.
        give_back: takes what comes when nobody wants anything any more.
    """

    def __init__(
        self, channel: Channel, queue: str, give_back: Callable[[Received], object]
    ) -> None:
        self.channel = channel
        self.queue = queue
        self._give_back = give_back
        self._pushed: deque[Received] = deque()
        self._came: asyncio.Future[None] | None = None
        self._tag = ""
        self._is_over = False
        self._is_wanted = True

    @property
    def is_there(self) -> bool:
        """Whether it will bring more."""
        return not self._is_over and self.channel.ended is None

    async def begin(self) -> None:
        """Have messages pushed."""
        await self.channel.limit(1)
        self._tag = await self.channel.consume(self.queue, self._push, on_end=self._on_end)

    async def next(self, deadline: clock.Deadline) -> Received | None:
        """Return what comes next; None, and it has ended, if nothing does until the deadline."""
        if not self._pushed and not self._is_over:
            self._came = self.channel.expect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came, deadline.left())
            if not (self._pushed or self._is_over):
                self._is_over = True
                await self.channel.cancel(self._tag)
        return self._pushed.popleft() if self._pushed else None

    def end(self) -> None:
        """Want nothing more; at once, so what is acknowledged after this brings nothing."""
        self._is_wanted = False
        if self.is_there:
            self._is_over = True
            self.channel.dismiss(self._tag)
        while self._pushed:
            self._give_back(self._pushed.popleft())

    def _on_end(self, why: Exception) -> None:
        # The channel stays: what it has brought can still be acknowledged, or replaced.
        self._is_over = True
        if self._came is not None and not self._came.done():
            self._came.set_exception(why)

    def _push(self, received: Received) -> None:
        if not self._is_wanted:
            self._give_back(received)
            return
        self._pushed.append(received)
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
