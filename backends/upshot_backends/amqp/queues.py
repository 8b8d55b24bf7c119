"""What the broker keeps on the server: queues by name, and how a message lies in them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, final
from urllib.parse import quote

from upshot import clock
from upshot.broker import QueuedMessage
from upshot_backends.amqp.channel import Channel, Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import RefusedForNowError
from upshot_backends.amqp.publisher import Parcel

__all__ = ["DELAYS", "Letter", "Names", "Post", "moment"]

logger = logging.getLogger(__name__)

DELAYS: Final = (1, 16, 256, 4096, 65536)
"""Seconds that a message rests in each delay queue; a longer way to its `eta` takes several rests,
at most fifteen of each kind but the longest."""

_PRIORITIES: Final = 10
_MOST_COUNTED: Final = 2**31 - 1  # deliveries; what others wrote into a message may be any number
_MOST_KNOWN: Final = 10_000
"""Names of queues that are remembered as declared: about 1 MB. To declare one again costs a round
trip and changes nothing, so it does not matter which are forgotten."""

_LONGEST: Final = 100
"""Characters of a namespace or queue in a queue's name, of which AMQP takes 255 bytes in all."""

_HASHED: Final = 34  # of these, for what replaces the end of a longer one


@final
class Names:
    """The names of the server's queues for one namespace.

    Args:
        namespace: what every name begins with, percent-encoded.
    """

    def __init__(self, namespace: str) -> None:
        part = _part(namespace)
        # Names that begin with "amq." are the server's own.
        self._prefix = f"%61{part[1:]}" if part.startswith("amq.") else part

    def main(self, queue: str) -> str:
        """Where messages wait for a worker."""
        return f"{self._prefix}/{_part(queue)}"

    def dead(self, queue: str) -> str:
        """Where buried messages lie."""
        return f"{self.main(queue)}/dead"

    def later(self, queue: str) -> str:
        """Where messages are whose `eta` is near."""
        return f"{self.main(queue)}/later"

    def rests(self, queue: str) -> list[str]:
        """Where messages rest until they have come closer to their `eta`, shortest first."""
        return [f"{self.later(queue)}/{delay}" for delay in DELAYS]

    def served(self, queue: str) -> list[str]:
        """What must be there for a worker to serve `queue`."""
        return [self.main(queue), self.later(queue), *self.rests(queue)]

    def all(self, queue: str) -> list[str]:
        """Every queue that can hold messages of `queue`."""
        return [*self.served(queue), self.dead(queue)]


class Letter(NamedTuple):
    """A message as the broker keeps it.

    Attributes:
        message: as it was published, but for its queue.
        queue: the one it belongs to.
        counted: how many deliveries have counted so far.
        again: it was in the queue before, and comes before its like.
    """

    message: QueuedMessage
    queue: str
    counted: int = 0
    again: bool = False

    @classmethod
    def of(cls, message: QueuedMessage) -> Letter:
        """Return the letter for a message that was never delivered."""
        return cls(message, message.queue)

    @classmethod
    def read(cls, received: Received, queue: str) -> Letter:
        """Return what lies in a queue; what somebody else has put there is read as far as it goes.

        A delivery that ended without a settlement is known by the server's mark only.
        """
        headers = received.headers
        priority = _integer(headers.get("priority"))
        message = QueuedMessage(
            message_id=str(headers.get("id", "")),
            queue=queue,
            body=received.body,
            priority=min(max(priority, 0), _PRIORITIES - 1),
            eta=moment(headers.get("eta")),
        )
        counted = min(max(_integer(headers.get("counted")), 0), _MOST_COUNTED)
        return cls(message, queue, counted)

    def due_in(self) -> float:
        """Return the seconds until it may be delivered, 0 or less for at once."""
        return 0.0 if self.message.eta is None else self.message.eta - clock.now()

    def parcel(self, name: str, **more: str) -> Parcel:
        """Return what to publish to the queue `name`; `more` are headers."""
        message = self.message
        headers: dict[str, Any] = {
            "id": message.message_id,
            "priority": message.priority,
            "counted": self.counted,
            **more,
        }
        if message.eta is not None:
            headers["eta"] = repr(message.eta)
        priority = 2 * message.priority + self.again
        return Parcel(queue=name, body=message.body, headers=headers, priority=priority)


@final
class Post:
    """Puts messages into queues that it makes when needed.

    Only for the connections' thread, but for what says otherwise.

    Args:
        names: the queues.
        publishing: a connection that nothing is consumed on.
    """

    def __init__(self, names: Names, publishing: AmqpConnection) -> None:
        self._names = names
        self._publishing = publishing
        self._known: set[str] = set()
        self._returning: set[asyncio.Task[None]] = set()

    async def declare(self, session: Session, names: Iterable[str]) -> None:
        """Make the named queues, unless they are known to be there."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._known]
        if not unknown:
            return
        channel = await session.channel()
        try:
            for name in unknown:
                await channel.declare(name, arguments=_arguments(name))
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known.add(name)
        finally:
            channel.close()

    def knows(self, names: Iterable[str]) -> bool:
        """Tell whether all the named queues were there when they were last used; on any thread."""
        return self._known.issuperset(names)

    def forget(self, names: Iterable[str]) -> None:
        """Declare these queues again before their next use: one of them is gone."""
        self._known.difference_update(names)

    async def remove(self, names: Sequence[str], session: Session) -> None:
        """Delete the named queues with all that is in them; those that are not there are fine."""
        self.forget(names)
        with contextlib.closing(await session.channel()) as channel:
            for name in names:
                await channel.delete(name)

    def address(self, letter: Letter) -> Parcel:
        """Return the parcel for the queue that the letter belongs to now: at once, or later.

        On any thread.
        """
        seconds = letter.due_in()
        if seconds <= 0:
            return letter.parcel(self._names.main(letter.queue))
        rests = zip(DELAYS, self._names.rests(letter.queue), strict=True)
        long_enough = [(delay, name) for delay, name in rests if delay <= seconds]
        if not long_enough:
            return letter.parcel(self._names.later(letter.queue))
        delay, name = long_enough[-1]
        return letter.parcel(name, until=repr(clock.now() + delay))

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Publish, and return when the server has every parcel safe.

        Raises:
            RefusedForNowError: queues vanish as fast as they are made.
            AMQPError, OSError: the connection; any of the parcels may have arrived.
        """
        left = list(parcels)
        session = await self._publishing.session()
        for _ in range(2):
            names = [parcel.queue for parcel in left]
            await self.declare(session, names)
            routed = await session.publish(left)
            left = [parcel for parcel, was in zip(left, routed, strict=True) if not was]
            if not left:
                return
            self.forget(names)
        raise RefusedForNowError("somebody deletes queues while messages are put into them")

    def give_back(self, channel: Channel, queue: str, received: Received) -> None:
        """Begin to put back what came when nobody wanted it: uncounted, and before its like."""
        task = asyncio.create_task(self._give_back(channel, queue, received))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def returned(self) -> None:
        """Return when nothing is being put back any more."""
        while self._returning:
            await asyncio.wait(self._returning)

    async def _give_back(self, channel: Channel, queue: str, received: Received) -> None:
        if channel.ended is not None:  # the server has put it back: it must not be there twice
            return
        letter = Letter.read(received, queue)
        counted = letter.counted + received.redelivered
        try:
            await self.send([self.address(letter._replace(counted=counted, again=True))])
            channel.ack(received.tag)
        except Exception as exc:  # the server puts it back, and marks it as delivered
            logger.debug("a message is given back by the server: %s", exc)
            with contextlib.suppress(Exception):
                channel.nack(received.tag)


def _arguments(name: str) -> dict[str, Any]:
    """Return what a queue is declared with. Only the main queues have one "/" in their names."""
    # An odd priority is for what comes again: it comes before what was published later.
    return {"x-max-priority": 2 * _PRIORITIES - 1} if name.count("/") == 1 else {}


@functools.lru_cache(maxsize=256)
def _part(name: str) -> str:
    """Return a name without "/", shortened if it must be; "%%" occurs in shortened ones only."""
    text = quote(name, safe="", errors="surrogatepass")
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: _LONGEST - _HASHED]}%%{digest[: _HASHED - 2]}"


def _integer(value: object) -> int:
    return int(value) if isinstance(value, int) else 0


def moment(value: object) -> float | None:
    """Return a moment that a header holds, in seconds since the epoch; None if it holds none."""
    try:
        seconds = float(value) if isinstance(value, str) else math.inf
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None
