"""Leases: deliveries that are unacknowledged on a live channel, until their time runs out.

The server gives a message to somebody else when the connection dies. For a process that lives but
does not renew its lease, this end does it: the thread that owns the connection puts the message
back when the time is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, final

from upshot import clock
from upshot.broker import Delivery
from upshot_backends.amqp.channel import Channel
from upshot_backends.amqp.connection import Session
from upshot_backends.amqp.fetching import Taken
from upshot_backends.amqp.queues import Letter
from upshot_backends.amqp.standing import Standing

__all__ = ["Lease", "Leases"]

_CLOCK: Final = 0.001  # seconds that asyncio may call a timer too early, and to spare


@final
class Lease:
    """One delivered message.

    Args:
        channel: where it came through.
        tag: its number there.
        letter: the message; `counted` is without this delivery.
        standing: the consumer that brought it and is still there; None for none.
    """

    def __init__(
        self, channel: Channel, tag: int, letter: Letter, standing: Standing | None
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.letter = letter
        self.standing = standing
        self.token = secrets.token_hex(16)
        self.until = 0.0
        """When it runs out, on the monotonic clock."""
        self.timer: asyncio.TimerHandle | None = None
        self.settling = False
        """Somebody is at settling it, so it does not run out."""
        self.sent = False
        """Whatever replaces the message is safe with the server."""
        self.acked = False
        """The acknowledgement was sent; the server may have heard it."""


@final
class Leases:
    """All leases of one broker object. Only for the connection's thread.

    Each fetch that is under way has a channel to itself, and keeps it for what it brought: whatever
    ends a channel ends few leases. Servers allow some 2 000 channels at a time.
    """

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._idle: list[Channel] = []
        self._busy: set[Channel] = set()
        self._holding: Counter[Channel] = Counter()

    async def take_channel(self, session: Session) -> Channel:
        """Return a channel for one fetch, to be given back by `give_channel`."""
        while self._idle:
            channel = self._idle.pop()
            if channel.ended is None:
                break
        else:
            channel = await session.channel()
            channel.when_ended(partial(self._on_end, channel))
        self._busy.add(channel)
        return channel

    def reuse_channel(self, lease: Lease) -> bool:
        """Take the channel of a lease for a fetch; False if one is under way on it."""
        if lease.channel in self._busy:
            return False
        self._busy.add(lease.channel)
        return True

    def give_channel(self, channel: Channel) -> None:
        """Take a channel back. It is used again once it holds no lease."""
        self._busy.discard(channel)
        self._recycle(channel)

    def spoil_channel(self, channel: Channel) -> None:
        """Close a channel that may still have answers, and messages, to come."""
        self._busy.discard(channel)
        channel.close()

    def add(self, channel: Channel, taken: Taken, seconds: float) -> Delivery:
        """Lease a message for `seconds`."""
        letter = taken.letter
        lease = Lease(channel, taken.tag, letter, taken.standing)
        self._leases[lease.token] = lease
        self._holding[channel] += 1
        self._extend(lease, seconds)
        return Delivery(
            message_id=letter.message.message_id,
            queue=letter.queue,
            body=letter.message.body,
            deliveries=letter.counted + 1,
            token=lease.token,
        )

    async def renew(self, deliveries: Sequence[Delivery], seconds: float) -> list[bool]:
        """Let leases run for `seconds` from now, and tell for each whether it still ran.

        The server is asked for a sign of life first: behind a dead connection it may have given
        the messages to somebody else.
        """
        leases = [self._find(delivery) for delivery in deliveries]
        alive = await _sync(lease.channel for lease in leases if lease is not None)
        answers: list[bool] = []
        for lease in leases:
            ours = lease is not None and lease.channel in alive
            if lease is not None and ours and lease.token in self._leases:
                self._extend(lease, seconds)
            answers.append(ours)
        return answers

    def begin(self, delivery: Delivery) -> Lease | None:
        """Return the lease to settle, None if it has ended or is being settled already."""
        lease = self._find(delivery)
        if lease is None or lease.settling:
            return None
        lease.settling = True
        return lease

    async def acknowledge(self, leases: Sequence[Lease]) -> set[Lease]:
        """Remove the messages from the server; return the leases of those that were still ours."""
        for lease in leases:
            if lease.channel.ended is None:
                self.let_go(lease)
        alive = await _sync(lease.channel for lease in leases)
        settled = {lease for lease in leases if lease.channel in alive}
        for lease in settled:
            self.strike_off(lease)
        return settled

    def let_go(self, lease: Lease, *, for_next: bool = False) -> None:
        """Send the acknowledgement; that it was heard, an answer on the channel will tell.

        Args:
            lease: the message.
            for_next: its consumer is to bring the next one.
        """
        if not lease.acked:
            if not for_next:
                _end_consumer(lease)
            lease.channel.ack(lease.tag)
            lease.acked = True

    def strike_off(self, lease: Lease) -> None:
        """Forget a lease: its message is no longer here."""
        if self._leases.pop(lease.token, None) is None:
            return
        if lease.timer is not None:
            lease.timer.cancel()
        self._holding[lease.channel] -= 1
        self._recycle(lease.channel)

    def finish(self, leases: Iterable[Lease]) -> None:
        """Let what `begin` returned run out again, if it was not settled."""
        for lease in leases:
            lease.settling = False
            self._run_out(lease)

    # -- below the surface ------------------------------------------------------------------------

    def _find(self, delivery: Delivery) -> Lease | None:
        """Return the lease, None if it has ended or its time is up."""
        lease = self._leases.get(delivery.token)
        if lease is not None:
            self._run_out(lease)
        return lease if delivery.token in self._leases else None

    def _extend(self, lease: Lease, seconds: float) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
        lease.until = clock.monotonic() + seconds
        loop = asyncio.get_running_loop()
        # A little later than that, so that the timer finds the time to be up.
        lease.timer = loop.call_later(seconds + _CLOCK, self._run_out, lease)

    def _run_out(self, lease: Lease) -> None:
        """Put the message back if its time is up, unless it is being settled."""
        if lease.settling or lease.acked or lease.until > clock.monotonic():
            return
        with contextlib.suppress(Exception):  # its channel has ended, which puts it back too
            _end_consumer(lease)
            lease.channel.nack(lease.tag)
        self.strike_off(lease)

    def _recycle(self, channel: Channel) -> None:
        if self._holding[channel] > 0:
            return
        del self._holding[channel]  # a Counter does not mind if there is none
        if channel.ended is None and channel not in self._busy and channel not in self._idle:
            self._idle.append(channel)

    def _on_end(self, channel: Channel, _: Exception) -> None:
        self._busy.discard(channel)
        for lease in [each for each in self._leases.values() if each.channel is channel]:
            self.strike_off(lease)


def _end_consumer(lease: Lease) -> None:
    if lease.standing is not None:
        lease.standing.end()


async def _sync(channels: Iterable[Channel]) -> set[Channel]:
    """Wait until the server has worked through what was sent; return the channels it did so for."""
    distinct = list(dict.fromkeys(channels))
    answers = await asyncio.gather(
        *(channel.sync() for channel in distinct), return_exceptions=True
    )
    return {
        channel
        for channel, answer in zip(distinct, answers, strict=True)
        if not isinstance(answer, BaseException)
    }
