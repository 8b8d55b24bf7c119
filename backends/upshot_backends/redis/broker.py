"""Messages on a Redis server.

Service: Redis 6.0 or newer: one server, a master behind sentinels, or a cluster (7.0 or newer).
What it cannot do: keep messages across a restart unless the server is configured to (`appendonly
yes`); keep those that a master took and had not replicated when it failed (`min-replicas-to-write`
makes their number small, nothing makes it zero); know a message again that was published, settled,
and is then published once more. In a cluster, all queues of one namespace live on one node, and
while their slot moves to another nothing is published or fetched.

Streams with consumer groups, Redis's own queue, are not used: they have no priorities, no `eta`,
no giving back without counting a delivery, and no replacing in one step. Instead every step is a
Lua script over sorted sets, so fetching and leasing are one: no crash can come between.

Layout: `<namespace>/<queue>/…` for each queue, both percent-encoded, see `scripts/queue.lua`, and
`<namespace>/workers`, `<namespace>/serving`, see `scripts/workers.lua`. In a cluster the namespace
stands in braces, which puts all of them into one slot. Nothing is left of a queue that is empty
and unused. Leases are measured on the server's clock.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

import redis

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.broker import (
    Action,
    Broker,
    BrokerCapabilities,
    Delivery,
    QueuedMessage,
    QueueStatus,
    Settlement,
)
from upshot.errors import PayloadTooLargeError
from upshot.url import Url
from upshot_backends.redis.bell import Bell
from upshot_backends.redis.client import Call, replies, script
from upshot_backends.redis.cluster import ClusterClient
from upshot_backends.redis.connection import open_client
from upshot_backends.redis.driver import DRIVER_ERRORS, Argument, Reply
from upshot_backends.redis.queueing import (
    found_in,
    id_of,
    lines,
    message_arguments,
    numbered,
    parts,
    quoted,
)
from upshot_backends.redis.results import RedisBackend, record_arguments

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["RedisBroker"]

_LARGEST: Final = 256 * 2**20  # bytes in one call; the server's limit for one string is 512 MiB
_ROUND_TRIP: Final = 5.0  # seconds that one look may take; `fetch` is not told a timeout
_PATIENT: Final = 0.5  # seconds; the server ends a shorter wait too late
_FRESH: Final = 1.0  # seconds for which a look that an exchange has had is as good as another
_SILENCE: Final = 2.5  # seconds from a look to the next while the server holds a pop: two waits
_PURGED: Final = 1000  # messages removed by one script call, to bound its time
_NO_MESSAGE: Final = ("", "", "", "", "")


class RedisBroker(Broker):
    """`redis://:password@localhost:6379/0`

    The URLs, parameters and options are those of `RedisBackend`.
    """

    capabilities = BrokerCapabilities(
        shared=True,
        persistent=False,
        deduplicates=True,
        ranks_queues=True,
        counts_leased=True,
        longest_lease=None,
        max_message_bytes=_LARGEST,
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url, namespace: str) -> None:
        self._url = url
        self._client = open_client(url)
        self._in_cluster = isinstance(self._client, ClusterClient)
        root = quoted(namespace)  # which holds no brace
        self._prefix = f"{{{root}}}/" if self._in_cluster else f"{root}/"
        self._bells: deque[Bell] = deque()
        self._looked: dict[tuple[str, tuple[str, ...]], _Looked] = {}

    def joins(self, backend: Backend) -> bool:
        if self._in_cluster or not isinstance(backend, RedisBackend):
            return False  # in a cluster, a record may live on any node
        return not backend.in_cluster and backend.url.identity == self._url.identity

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        self._check_size(messages, records)
        queues = numbered(message.queue for message in messages)
        bases = self._keys(self._bases(queues))
        arguments: list[Argument] = [len(bases), len(messages), f"@{self._client.database}"]
        for message in messages:
            arguments += message_arguments(message, queues)
        for record in records:
            arguments += record_arguments(record)
        keys = [*bases, *(record.key for record in records)]
        lua = script(self._client.pubsub, "guard", "queue", "publish")
        self._client.run(lua, [(keys, arguments)], timeout)

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        deadline = clock.Deadline(wait)
        distinct = tuple(dict.fromkeys(queues))
        looked = self._looked.pop((worker, distinct), None)
        bell = self._take_bell(distinct)
        try:
            if looked is not None and looked.nothing_due_within(wait, bell.is_waiting):
                if bell.is_waiting:
                    bell.wait(wait)
                    deliveries: Sequence[Delivery] = ()
                else:
                    call = self._fetch_call(distinct, limit, lease, worker)
                    deliveries = found_in(bell.wait_for(call, wait), distinct)[1]
                if deliveries or deadline.expired:
                    return deliveries
            while True:
                due_in, deliveries = self._look(distinct, limit, lease, worker)
                looked = _Looked(due_in)
                if deliveries:
                    bell.hush()
                left = deadline.left() or 0.0
                if deliveries or left <= 0:
                    return deliveries
                bell.wait(min(left, due_in))
                if deadline.expired:
                    self._looked[worker, distinct] = looked
                    return []
        finally:
            self._bells.append(bell)
            if self._client.closed:
                self._close_bells()

    def settle(self, settlements: Sequence[Settlement], timeout: float) -> Sequence[bool]:
        calls = [self._settle_call(part) for part in parts(settlements)]
        answers = self._client.run_each(calls, timeout)
        return [settled == 1 for part in answers for settled in cast("list[int]", part)]

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
        deadline, distinct = clock.Deadline(timeout), tuple(dict.fromkeys(queues))
        answers = self._client.try_each(
            [
                self._settle_call([settlement], record),
                self._fetch_call(distinct, 1, lease, worker),
            ],
            timeout,
        )
        if isinstance(answers[0], redis.ResponseError):
            self._give_back(answers[1], distinct, deadline)
        ended, found = replies(answers)
        *applied, ours = cast("list[int]", ended)
        due_in, deliveries = found_in(found, distinct)
        if not deliveries:
            self._looked[worker, distinct] = _Looked(due_in)
        return applied == [1], ours == 1, deliveries

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        numbers = numbered(delivery.queue for delivery in deliveries)
        arguments: list[Argument] = [worker, lines(queues), lease]
        for delivery in deliveries:
            arguments += (numbers[delivery.queue], id_of(delivery), delivery.token)
        keys = [*self._worker_keys, *self._bases(numbers)]
        beat = script("queue", "workers", "beat")
        answers = self._client.run(beat, [(keys, arguments)], timeout)[0]
        return [held == 1 for held in cast("list[int]", answers)]

    def survey(self, queues: Sequence[str], timeout: float) -> Mapping[str, QueueStatus]:
        distinct = tuple(dict.fromkeys(queues))
        keys = [*self._worker_keys, *self._bases(distinct)]
        answer = self._client.run(script("queue", "survey"), [(keys, [])], timeout)[0]
        alive, *counts = cast("tuple[list[bytes], *tuple[list[int], ...]]", answer)
        serving = {
            worker.decode(): lines.decode().split("\n")
            for worker, lines in zip(alive[::2], alive[1::2], strict=True)
        }
        return {
            queue: QueueStatus(
                ready=ready,
                delayed=delayed,
                leased=leased,
                dead=dead,
                workers=tuple(sorted(name for name in serving if quoted(queue) in serving[name])),
            )
            for queue, (ready, delayed, leased, dead) in zip(distinct, counts, strict=True)
        }

    def purge(self, queues: Sequence[str], timeout: float) -> int:
        deadline = clock.Deadline(timeout)
        purge = script("queue", "purge")
        removed = 0
        for base in self._bases(dict.fromkeys(queues)):
            last = _PURGED
            while last >= _PURGED:
                left = deadline.left() or 0.0
                call = (self._keys([base]), [_PURGED])
                last = cast("int", self._client.run(purge, [call], left)[0])
                removed += last
        return removed

    def close(self) -> None:
        self._client.close()
        self._close_bells()

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.redis import diagnosis  # which nobody else needs

        return diagnosis.diagnose(self._client, timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.redis import diagnosis  # as above

        return diagnosis.advise(said)

    # -- below the surface --------------------------------------------------------------------

    def _look(
        self, queues: Sequence[str], limit: int, lease: float, worker: str
    ) -> tuple[float, list[Delivery]]:
        """Lease what is due now; also tell in how many seconds something will be."""
        call = self._fetch_call(queues, limit, lease, worker)
        return found_in(self._client.run_each([call], _ROUND_TRIP)[0], queues)

    def _fetch_call(self, queues: Sequence[str], limit: int, lease: float, worker: str) -> Call:
        keys = [*self._bases(queues), *self._worker_keys]
        token = secrets.token_hex(8) + "-"
        return (
            script("queue", "workers", "fetch"),
            keys,
            [limit, lease, worker, lines(queues), token],
        )

    def _give_back(
        self, found: Reply | redis.ResponseError, queues: Sequence[str], deadline: clock.Deadline
    ) -> None:
        """Release what an exchange has leased whose other half failed: nobody will run it."""
        if isinstance(found, redis.ResponseError):
            return
        settlements = [
            Settlement(delivery=delivery, action=Action.RELEASE)
            for delivery in found_in(found, queues)[1]
        ]
        if settlements:
            with contextlib.suppress(redis.RedisError):  # the first error counts; the lease ends
                self.settle(settlements, deadline.left() or 0.0)

    def _settle_call(
        self, settlements: Sequence[Settlement], record: StoredRecord | None = None
    ) -> Call:
        queues = numbered(
            [settlement.delivery.queue for settlement in settlements]
            + [settlement.message.queue for settlement in settlements if settlement.message]
        )
        keys = self._keys(self._bases(queues))
        arguments: list[Argument] = [len(keys), f"@{self._client.database}"]
        if record is not None:
            keys.append(record.key)
            arguments += record_arguments(record)
        for settlement in settlements:
            delivery, message = settlement.delivery, settlement.message
            arguments += (queues[delivery.queue], id_of(delivery), delivery.token)
            arguments += (settlement.action.value, settlement.reason)
            arguments += message_arguments(message, queues) if message else _NO_MESSAGE
        return script(self._client.pubsub, "guard", "queue", "settle"), keys, arguments

    def _take_bell(self, queues: Sequence[str]) -> Bell:
        """Return a bell that no other thread uses."""
        keys = [f"{base}/bell" for base in self._bases(queues)]
        try:
            bell = self._bells.pop()
        except IndexError:
            return Bell(self._client, keys)
        if bell.keys == tuple(keys):
            return bell
        bell.close()
        return Bell(self._client, keys)

    def _close_bells(self) -> None:
        while True:
            try:
                self._bells.pop().close()
            except IndexError:
                return

    @property
    def _worker_keys(self) -> tuple[str, str]:
        return f"{self._prefix}workers", f"{self._prefix}serving"

    def _bases(self, queues: Iterable[str]) -> list[str]:
        return [self._prefix + quoted(queue) for queue in queues]

    def _keys(self, bases: list[str]) -> list[str]:
        """Return the keys that a script call names.

        Scripts build the keys they use from base names, which are no keys themselves. While a
        cluster moves their slot, a node knows only the names: one name that it does not have
        would be passed on to the new node, where half of the queue is missing. Of two names that
        it does not have, it says TRYAGAIN until the whole slot has moved.
        """
        return [*bases, self._worker_keys[0]] if self._in_cluster else bases

    def _check_size(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord]
    ) -> None:
        size = sum(len(message.body) for message in messages)
        size += sum(len(record.body) for record in records)
        if size > _LARGEST:
            raise PayloadTooLargeError(
                f"{len(messages)} messages and their records have {size} bytes, too many for the "
                f"one step in which {self._url} publishes them ({_LARGEST}); send fewer at once",
                size=size,
                limit=_LARGEST,
            )


@final
class _Looked:
    """That a look has just found nothing, so that the fetch after it need not look again.

    Args:
        due_in: seconds until something will be due; infinite if nothing is known to be.
    """

    def __init__(self, due_in: float) -> None:
        self._at = clock.monotonic()
        self._due_in = due_in

    def nothing_due_within(self, seconds: float, is_listening: bool) -> bool:
        """Tell whether that is of use to a wait of so many seconds.

        The server ends short ones too late, and what is due before the end would come with it.
        After a while nobody knows whether a bell that rang since is still there: it expires. A pop
        that the server holds hears it, but another fetcher may have, and died: nobody goes on
        without a look for long.

        Args:
            seconds: how long the wait is.
            is_listening: the server has held a pop since the look.
        """
        age = clock.monotonic() - self._at
        if seconds < _PATIENT or self._due_in <= age + seconds:
            return False
        return age + seconds < _SILENCE if is_listening else age < _FRESH
