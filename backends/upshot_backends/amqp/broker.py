"""Messages on a RabbitMQ server.

Service: RabbitMQ 3 or newer, without plug-ins. What it cannot do: know a message again that was
published before, so a repeated `publish` may leave two (the record of their task lets one of them
run); tell who serves a queue, or how many messages are at workers; look at what a queue holds, so
the queues of one `fetch` are served fairly and not by priority; keep a lease for longer than the
server's `consumer_timeout`, 30 minutes unless configured.

Layout, for each queue, names percent-encoded, all of them classic, durable and made when needed:

    <namespace>/<queue>              with 20 priorities: two for each of ours; what comes again
                                     (given back, lease ran out) has the upper one
    <namespace>/<queue>/dead         what was buried, with the header `reason`
    <namespace>/<queue>/later        messages with an `eta` that is near, see `delays`
    <namespace>/<queue>/later/<s>    where those with a farther one rest for so many seconds

A lease is an unacknowledged delivery; see `leases`. How often a message was delivered cannot be
told from a classic queue, and quorum queues, which count, have no priorities. So before a message
that the server marks as redelivered is handed out, it is published once more with its count in a
header, and the old one acknowledged. (A server that was killed marks all it had, so that one
delivery too many is counted; it may also bring back what had just been acknowledged.) The same
order, confirm and then acknowledge, replaces, gives back, buries and delays: never lost, and twice
in the queue if the process dies in between. The second one is the same attempt of the same task
then, which its record lets start once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import (
    Action,
    Broker,
    BrokerCapabilities,
    Delivery,
    QueuedMessage,
    QueueStatus,
    Settlement,
)
from upshot.url import Url
from upshot_backends.amqp.channel import Channel
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.delays import Delays
from upshot_backends.amqp.driver import DRIVER_ERRORS, NOT_FOUND, RefusedForNowError
from upshot_backends.amqp.fetching import Fetch
from upshot_backends.amqp.io_thread import IoThread
from upshot_backends.amqp.leases import Lease, Leases
from upshot_backends.amqp.options import AmqpOptions
from upshot_backends.amqp.publisher import Parcel
from upshot_backends.amqp.queues import Letter, Names, Post
from upshot_backends.amqp.standing import Standing

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["AmqpBroker"]

_ROUND_TRIP: Final = 5.0  # seconds that one look may take; `fetch` is not told a timeout


class AmqpBroker(Broker):
    """`amqp://user:password@localhost:5672/virtual_host`

    `pyamqp://` is the same, `amqps://` goes over TLS. The options of ours are for the results that
    come by the same URL, see `AmqpOptions`; the others are pika's (`heartbeat` in seconds,
    `ssl_options`, …), see `AmqpConnection`.
    """

    capabilities = BrokerCapabilities(
        shared=True,
        persistent=True,
        deduplicates=False,
        ranks_queues=False,
        counts_leased=False,
        longest_lease=1800.0,  # the server's `consumer_timeout`, which cannot be asked for
        max_message_bytes=16 * 2**20,  # what RabbitMQ 4 takes by default; 3 takes eight times that
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url, namespace: str) -> None:
        url.read_options(AmqpOptions)
        self._names = Names(namespace)
        self._thread = IoThread()
        self._consuming = AmqpConnection(url, self._thread)
        self._publishing = AmqpConnection(url, self._thread, disposable=True)
        self._post = Post(self._names, self._publishing)
        self._delays = Delays(self._names, self._post)
        self._leases = Leases()
        self._turn = 0
        self._is_drained = False
        self._standing: Standing | None = None
        self._lapse: asyncio.TimerHandle | None = None
        self._lapsing: set[asyncio.Task[None]] = set()

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        deadline = clock.Deadline(timeout)
        parcels = [self._post.address(Letter.of(message)) for message in messages]
        routed = [False] * len(parcels)
        known = self._post.knows(parcel.queue for parcel in parcels)
        if known:
            routed = self._publishing.publish(parcels, timeout)
        left = [parcel for parcel, was in zip(parcels, routed, strict=True) if not was]
        if not left:
            return

        async def send(_: Session) -> None:
            if known:
                self._post.forget(parcel.queue for parcel in left)
            await self._post.send(left)

        self._publishing.call(send, deadline.left() or 0.0)

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        distinct = list(dict.fromkeys(queues))

        async def fetch(session: Session) -> list[Delivery]:
            return await self._fetch(session, distinct, limit, wait, lease)

        # A dead worker is noticed after at most two heartbeats: about when its lease is over.
        self._consuming.heartbeat = math.ceil(lease / 2)
        return self._consuming.call(fetch, wait + _ROUND_TRIP)

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        return self._thread.run(partial(self._settle, settlements), timeout)

    def exchange(
        self,
        settlement: Settlement,
        record: StoredRecord | None,
        queues: Sequence[str],
        *,
        lease: float,
        worker: str,
        timeout: float,
    ) -> tuple[bool, bool, Sequence[Delivery]]:
        if settlement.action is not Action.ACK:
            (ours,) = self.settle([settlement], timeout)
            return False, ours, []
        distinct = list(dict.fromkeys(queues))
        exchange = partial(self._exchange, settlement.delivery, distinct, lease)
        ours, found = self._thread.run(exchange, timeout)
        return False, ours, found

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        return self._thread.run(partial(self._beat, queues, deliveries, lease), timeout)

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        async def survey(session: Session) -> dict[str, QueueStatus]:
            return {queue: await self._status(session, queue) for queue in queues}

        return self._consuming.call(survey, timeout)

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        async def purge(session: Session) -> int:
            return sum([await self._purge(session, queue) for queue in dict.fromkeys(queues)])

        return self._consuming.call(purge, timeout)

    def leave(self, queues: Sequence[str], timeout: float) -> None:
        """See `upshot.broker.Leaving`."""
        names = [name for queue in queues for name in self._names.all(queue)]
        self._consuming.call(partial(self._post.remove, names), timeout)

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.amqp.diagnosis import look  # which nobody else needs

        return self._consuming.call(look, timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.amqp.diagnosis import advise  # as above

        return advise(said)

    def close(self) -> None:
        self._thread.close()

    # -- on the connections' thread ---------------------------------------------------------------

    async def _fetch(
        self, session: Session, queues: list[str], limit: int, wait: float, lease: float
    ) -> list[Delivery]:
        try:
            for queue in queues:
                await self._post.declare(session, self._names.served(queue))
                await self._delays.attend(session, queue)
            return await self._take(session, queues, limit, wait, lease)
        except RefusedForNowError:  # somebody deletes queues: the next fetch makes them again
            self._post.forget(name for queue in queues for name in self._names.all(queue))
            raise

    async def _take(
        self, session: Session, queues: list[str], limit: int, wait: float, lease: float
    ) -> list[Delivery]:
        standing = self._taken_over()
        if standing is not None:
            is_meant = standing.is_there and self._serves(standing, queues)
            if is_meant and limit == 1 and wait > 0:
                return await self._take_by(standing.channel, queues, 1, wait, lease, standing)
            await self._withdraw(standing)
        channel = await self._leases.take_channel(session)
        return await self._take_by(channel, queues, limit, wait, lease)

    async def _take_by(
        self,
        channel: Channel,
        queues: list[str],
        limit: int,
        wait: float,
        lease: float,
        standing: Standing | None = None,
    ) -> list[Delivery]:
        self._turn += 1
        first = self._turn % len(queues)
        in_turn = queues[first:] + queues[:first]
        fetch = Fetch(channel, self._names, self._post, in_turn, limit, standing)
        # What is in a single queue a consumer brings as soon as a look would.
        is_drained = self._is_drained and len(queues) == 1
        try:
            taken = await fetch.run(clock.Deadline(wait), is_drained=is_drained)
        except BaseException:
            self._leases.spoil_channel(channel)
            raise
        self._is_drained = not taken
        held = [self._leases.add(channel, each, lease) for each in taken]
        self._leases.give_channel(channel)
        return held

    async def _exchange(
        self, delivery: Delivery, queues: list[str], lease: float
    ) -> tuple[bool, list[Delivery]]:
        """Acknowledge, and look for the next message by the same channel.

        It answers in order: the look's answer says that the acknowledgement has been heard. Where
        a consumer has brought the last one, it brings the next to the fetch that follows.
        """
        ended = self._leases.begin(delivery)
        if ended is None:
            return False, []
        try:
            if not self._leases.reuse_channel(ended):
                return bool(await self._leases.acknowledge([ended])), []
            standing = ended.standing
            if standing is not None and standing.is_there and self._serves(standing, queues):
                await self._go_on(ended, standing, lease)
                return True, []
            self._leases.let_go(ended)
            try:
                found = await self._take_by(ended.channel, queues, 1, 0.0, lease)
            except RefusedForNowError:
                self._post.forget(name for queue in queues for name in self._names.all(queue))
                raise
            self._leases.strike_off(ended)
            return True, found
        finally:
            self._leases.finish([ended])

    async def _go_on(self, ended: Lease, standing: Standing, lease: float) -> None:
        """Acknowledge, and let a consumer bring the next message."""
        self._leases.let_go(ended, for_next=True)
        try:
            await standing.channel.sync()
        except BaseException:
            self._leases.spoil_channel(standing.channel)
            raise
        self._leases.strike_off(ended)
        other = self._taken_over()
        self._standing = standing
        # What it brings is nobody's yet, and whoever asks for it next may be held up.
        self._lapse = asyncio.get_running_loop().call_later(lease, self._give_up_waiting)
        if other is not None:  # of another thread's, which finds none then
            await self._withdraw(other)

    def _taken_over(self) -> Standing | None:
        """Return the consumer that is there, which is the caller's from now on; None for none."""
        standing, self._standing = self._standing, None
        if self._lapse is not None:
            self._lapse.cancel()
        return standing

    def _give_up_waiting(self) -> None:
        """Withdraw a consumer that nobody has asked for a message for the time of a lease."""
        standing = self._taken_over()
        if standing is not None:
            task = asyncio.create_task(self._withdraw(standing))
            self._lapsing.add(task)
            task.add_done_callback(self._lapsing.discard)

    def _serves(self, standing: Standing, queues: list[str]) -> bool:
        return [standing.queue] == [self._names.main(queue) for queue in queues]

    async def _withdraw(self, standing: Standing) -> None:
        """End a consumer of which nobody takes what it brings."""
        standing.end()
        with contextlib.suppress(Exception):  # its channel has ended, and it with it
            await standing.channel.sync()
        await self._post.returned()
        self._leases.give_channel(standing.channel)

    async def _beat(
        self, queues: Sequence[str], deliveries: Sequence[Delivery], lease: float
    ) -> list[bool]:
        standing = None if queues else self._taken_over()
        if standing is not None:
            await self._withdraw(standing)
        return await self._leases.renew(deliveries, lease)

    async def _settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        leases = [self._leases.begin(settlement.delivery) for settlement in settlements]
        ours = [lease for lease in leases if lease is not None]
        try:
            parcels = [
                self._substitute(settlement, lease.letter)
                for settlement, lease in zip(settlements, leases, strict=True)
                if lease is not None and not lease.sent and settlement.action is not Action.ACK
            ]
            if parcels:
                await self._post.send(parcels)
            for lease in ours:
                lease.sent = True
            settled = await self._leases.acknowledge(ours)
        finally:
            self._leases.finish(ours)
        return [lease in settled for lease in leases]

    def _substitute(self, settlement: Settlement, letter: Letter) -> Parcel:
        """Return what takes the place of a message."""
        if settlement.action is Action.BURY:
            return letter.parcel(self._names.dead(letter.queue), reason=settlement.reason)
        if settlement.message is not None:
            return self._post.address(Letter.of(settlement.message))
        return self._post.address(letter._replace(again=True))

    async def _status(self, session: Session, queue: str) -> QueueStatus:
        names = self._names.all(queue)
        ready, *delayed, dead = await asyncio.gather(*(_count(session, name) for name in names))
        return QueueStatus(
            ready=ready,
            delayed=sum(delayed) + self._delays.count(queue),
            leased=None,
            dead=dead,
            workers=None,
        )

    async def _purge(self, session: Session, queue: str) -> int:
        main, later, *rests = self._names.served(queue)
        purged = self._delays.drop(queue)
        # In the order of their way: what moves on meanwhile is caught at its next stop.
        for name in (*reversed(rests), later, main, self._names.dead(queue)):
            purged += await _purge(session, name)
        return purged


async def _count(session: Session, name: str) -> int:
    """Return how many messages are ready in a queue of the server; 0 if it is not there."""
    return await _unless_missing(session, lambda channel: channel.declare(name, passive=True))


async def _purge(session: Session, name: str) -> int:
    """Remove what is ready in a queue of the server, and return how much that was."""
    return await _unless_missing(session, lambda channel: channel.purge(name))


async def _unless_missing(
    session: Session, ask: Callable[[Channel], Coroutine[Any, Any, int]]
) -> int:
    channel = await session.channel()
    try:
        return await ask(channel)
    except RefusedForNowError as exc:
        if exc.code != NOT_FOUND:
            raise
        return 0
    finally:
        channel.close()
