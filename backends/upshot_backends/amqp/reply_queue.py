"""The one queue that brings a process its results, and the task that reads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, final

from upshot import retrying
from upshot.url import Url
from upshot_backends.amqp.channel import Channel, Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import (
    NOT_FOUND,
    ConnectionLostError,
    NoAnswerError,
    RefusedForNowError,
)
from upshot_backends.amqp.io_thread import IoThread

__all__ = ["ReplyQueue"]

logger = logging.getLogger(__name__)

_MOST: Final = 100_000  # messages, and
_MOST_BYTES: Final = 256 * 2**20  # bytes that may wait in it
_PREFETCH: Final = 500  # messages on their way to us: enough to be busy while acks travel
_MANY: Final = _PREFETCH // 4  # messages that are acknowledged at once, and
_QUIET: Final = 0.05  # seconds without any until fewer are; the mailbox knows what comes again
_SET_UP: Final = 10.0  # seconds that opening and declaring may take
_FIRST_PAUSE: Final = 0.05  # seconds between two attempts to reach a server that is away;
_LONGEST_PAUSE: Final = 2.0  # doubles up to this
_FAREWELL: Final = 0.4  # seconds for the server to delete the queue when we close


@final
class ReplyQueue:
    """A durable queue whose name only this process knows.

    It is there from the first `open` until `close`. While the connection is lost it stays, and
    keeps what comes; a process that ends without `close` leaves it for `idle` seconds. It is
    durable, so that it is there again as soon as a server that was restarted.

    Args:
        name: unique and not to be guessed.
        url: the server, for messages.
        thread: what runs the connection.
        idle: seconds after which the server deletes the queue if nobody reads it.
        on_message: takes each message, on the thread; after that it is acknowledged.
    """

    def __init__(
        self,
        name: str,
        url: Url,
        thread: IoThread,
        *,
        idle: float,
        on_message: Callable[[Received], object],
    ) -> None:
        self.is_open = False
        """Messages come, as far as is known."""
        self._name = name
        self._url = url
        self._thread = thread
        self._on_message = on_message
        # Of its own: a server that lacks memory stops reading from connections that publish, and
        # acknowledgements with it.
        self._connection = AmqpConnection(url, thread)
        self._arguments = {
            "x-expires": round(idle * 1000),
            "x-max-length": _MOST,
            "x-max-length-bytes": _MOST_BYTES,
            # Whoever sends tries again until we have caught up, so nothing is lost. That has an
            # end: the server gives up a client that is stuck, and then the queue.
            "x-overflow": "reject-publish",
        }
        self._keeping: asyncio.Task[None] | None = None
        self._channel: Channel | None = None
        self._attempt: asyncio.Future[None] | None = None
        self._hurry = asyncio.Event()
        self._readers = 0

    def open(self, timeout: float) -> None:
        """Return once messages come; at once if they do.

        From the first call on, the queue is opened again whenever it is lost, until `close`.

        Raises:
            NoAnswerError: not within `timeout` seconds.
            AMQPError, OSError: why it cannot be opened now.
        """
        if not self.is_open:
            self._thread.run(self._wait_until_open, timeout)

    def close(self) -> None:
        """Delete the queue, if the server can be reached; raises nothing."""
        if self._keeping is not None:
            try:
                self._thread.run(self._end, _FAREWELL)
            except Exception as exc:  # then the server deletes it when it was idle for long enough
                logger.debug("%s: a reply queue is left to expire: %s", self._url, exc)

    # -- on the thread ------------------------------------------------------------------------

    async def _wait_until_open(self) -> None:
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        while not self.is_open:
            self._hurry.set()
            if self._attempt is None:
                self._attempt = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._attempt)

    async def _end(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        self.is_open = False
        self._tell(ConnectionLostError("closed by this process"))
        # On the channel that reads it, which is open: a server that takes its time hears of it in
        # any case, as it hears all that is said before our farewell, in order.
        if self._channel is not None and self._channel.ended is None:
            await self._channel.delete(self._name)

    async def _keep(self) -> None:
        """Read the queue, whatever becomes of the connection."""
        pause = _FIRST_PAUSE
        while True:
            self._hurry.clear()
            try:
                channel = await self._begin()
            except Exception as exc:  # whoever waits learns what it is, and judges
                self._tell(exc)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                self._channel = channel
                self.is_open = True
                self._tell(None)
                if self._readers > 1:
                    logger.info("%s: results come again", self._url)
                why = await _end_of(channel)
                self.is_open = False
                logger.warning(
                    "%s: results wait there until it can be reached again: %s",
                    self._url,
                    self._url.scrub(str(why)) or type(why).__name__,
                )
            try:
                async with asyncio.timeout(retrying.jitter(pause / 2, pause)):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def _begin(self) -> Channel:
        """Declare the queue and have its messages pushed to us."""
        try:
            async with asyncio.timeout(_SET_UP):
                session = await self._connection.session()
                if self._readers:
                    await self._look_for_loss(session)
                channel = await session.channel()
                await channel.declare(self._name, arguments=self._arguments)
                await channel.limit(_PREFETCH)
                # The server may take a while to see that our last connection is dead. Until then
                # it has two readers, and gives messages to the one with the higher priority.
                self._readers += 1
                await channel.consume(
                    self._name,
                    partial(self._take, _Acks(channel)),
                    arguments={"x-priority": self._readers},
                )
                return channel
        except BaseException as exc:
            # Cancelled, timed out or refused, it may have a reader by now, or be half open.
            if self._connection.current is not None:
                self._connection.current.abort(ConnectionLostError("its setting up failed"))
            if isinstance(exc, TimeoutError):
                raise NoAnswerError(f"no answer within {_SET_UP:g} seconds") from exc
            raise

    async def _look_for_loss(self, session: Session) -> None:
        """Say so if the queue is gone, which may have held results."""
        channel = await session.channel()
        try:
            await channel.declare(self._name, passive=True)
        except RefusedForNowError as exc:
            if exc.code == NOT_FOUND:
                logger.warning(
                    "%s: the server has lost the queue of this process, with any results in it;"
                    " tasks that end from now on are not affected",
                    self._url,
                )
        else:
            channel.close()

    def _take(self, acks: _Acks, message: Received) -> None:
        try:
            self._on_message(message)
        except Exception:  # a defect; one message must not end all others
            logger.exception("%s: a result could not be taken in", self._url)
        acks.add(message.tag)

    def _tell(self, error: Exception | None) -> None:
        """Tell whoever waits how the attempt to open it ended."""
        attempt, self._attempt = self._attempt, None
        if attempt is None or attempt.done():
            return
        if error is None:
            attempt.set_result(None)
        else:
            attempt.set_exception(error)
            attempt.exception()  # seen, even if whoever waited has given up


@final
class _Acks:
    """Acknowledges what has come by a channel, together: one by one it would cost the server as
    much as to bring the messages.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._count = 0
        self._last = 0

    def add(self, tag: int) -> None:
        """Acknowledge this message, soon."""
        self._last = tag
        self._count += 1
        if self._count == 1:
            self._wait()
        elif self._count == _MANY:
            self._send()

    def _wait(self) -> None:
        asyncio.get_running_loop().call_later(_QUIET, self._look, self._last)

    def _look(self, last: int) -> None:
        """Send, if nothing has come since `last`."""
        if self._count and self._last != last:
            self._wait()
        elif self._count:
            self._send()

    def _send(self) -> None:
        if self._channel.ended is None:
            self._channel.ack(self._last, multiple=True)
        self._count = 0


async def _end_of(channel: Channel) -> Exception:
    """Return what ended the channel, once it has ended."""
    ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def note(why: Exception) -> None:
        if not ended.done():
            ended.set_result(why)

    channel.when_ended(note)
    return await ended
