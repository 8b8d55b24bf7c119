"""The push connections to a cluster: one to each node where somebody's result is awaited."""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from typing import Final, cast, final

import redis

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_backends.redis.cluster import ClusterClient
from upshot_backends.redis.driver import Connection
from upshot_backends.redis.listener import READ_IT, Alarm
from upshot_backends.redis.server import Server

__all__ = ["ClusterListener"]

_RETRY: Final = 0.05  # seconds until a node that refused a subscription is asked again


class _Ear:
    """One connection in RESP2, and what was asked for on it and not answered yet."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self.server = server
        self.connection = connection
        self.unconfirmed: set[str] = set()
        self.refusals = 0

    def send(self, command: str, keys: Iterable[str], until: float) -> None:
        # One channel a command: those of several slots may not share one, and a node answers
        # each command once, by a confirmation or by a refusal.
        packed = self.connection.pack_commands([(command, key) for key in keys])
        self.connection.timed.until = until
        self.connection.send_packed_command(packed)


@final
class ClusterListener(Listener):
    """Subscribes to one sharded channel per awaited key, on the master that serves its slot.

    The connections are only ever used by the hub's thread, which waits for all of them at once.
    A node that gives a slot away ends the subscriptions there and says so: they are made anew
    where the slot is now, and reported as changed.

    Args:
        client: knows where keys live, and opens connections; the channel of a key has its name.
        timeout: seconds to open a connection, and to have subscriptions confirmed.
    """

    def __init__(self, client: ClusterClient, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._ears: dict[int, _Ear] = {}  # by descriptor
        self._homes: dict[str, _Ear] = {}  # where each key is subscribed
        self._homeless: set[str] = set()
        self._heard: list[Hint] = []
        self._alarm = Alarm()
        self._poll = select.poll()
        self._poll.register(self._alarm.fileno(), select.POLLIN)

    def subscribe(self, keys: Sequence[str]) -> None:
        self._settle(set(keys), clock.monotonic() + self._timeout)
        # What the parsers have read ahead would not show on the sockets `wait` polls.
        for ear in self._ears.values():
            self._drain(ear)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        # The confirmations are read, and ignored, by the waits that follow.
        until = clock.monotonic() + self._timeout
        ending: dict[_Ear, list[str]] = {}
        for key in keys:
            self._homeless.discard(key)
            ear = self._homes.pop(key, None)
            if ear is not None:
                ending.setdefault(ear, []).append(key)
        for ear, leaving in ending.items():
            ear.send("SUNSUBSCRIBE", leaving, until)

    def wait(self, timeout: float) -> Sequence[Hint]:
        if not (self._heard or self._homeless):
            for descriptor, _ in self._poll.poll(max(0.0, timeout) * 1000):
                if descriptor == self._alarm.fileno():
                    self._alarm.silence()
                else:
                    self._drain(self._ears[descriptor])
        if self._homeless:
            moved, self._homeless = self._homeless, set()
            self._client.doubt()
            self._settle(set(moved), clock.monotonic() + self._timeout)
            self._heard += [Hint(key) for key in moved]  # what came between was not heard
        heard, self._heard = self._heard, []
        return heard

    def interrupt(self) -> None:
        self._alarm.ring()

    def close(self) -> None:
        for ear in self._ears.values():
            ear.server.discard(ear.connection)
        self._alarm.close()

    def _settle(self, keys: set[str], until: float) -> None:
        """Subscribe to `keys` wherever they live; return when all are confirmed.

        Raises:
            redis.RedisError: a node cannot be reached, or slots have not stopped moving in time.
        """
        while True:
            asked: dict[_Ear, list[str]] = {}
            for key in keys:
                asked.setdefault(self._ear_for(key, until), []).append(key)
            for ear, new in asked.items():
                ear.unconfirmed.update(new)
                ear.refusals = 0
                self._homes.update(dict.fromkeys(new, ear))
                ear.send("SSUBSCRIBE", new, until)
            for ear in asked:
                while len(ear.unconfirmed) > ear.refusals:
                    self._take(ear, until)
            keys = {key for ear in asked for key in ear.unconfirmed}
            if not keys:
                return
            for ear in asked:
                ear.unconfirmed.clear()
            self._client.doubt()
            clock.sleep(_RETRY)

    def _ear_for(self, key: str, until: float) -> _Ear:
        left = max(0.0, until - clock.monotonic())
        if not left:
            raise redis.TimeoutError("the nodes have not confirmed all subscriptions in time")
        server = self._client.server(key, left)
        for ear in self._ears.values():
            if ear.server is server:
                return ear
        connection = server.open(until, protocol=2)
        ear = self._ears[connection.timed.fileno()] = _Ear(server, connection)
        self._poll.register(connection.timed.fileno(), select.POLLIN)
        return ear

    def _drain(self, ear: _Ear) -> None:
        """Take everything that has arrived, and do not wait for more."""
        try:
            while True:
                self._take(ear, until=0.0)
        except redis.TimeoutError:
            return

    def _take(self, ear: _Ear, until: float) -> None:
        """Read one message.

        Raises:
            redis.TimeoutError: none has arrived by `until`; one that has arrived in part is kept.
        """
        ear.connection.timed.until = until
        try:
            message = ear.connection.read_response(disconnect_on_error=False)
        except redis.ResponseError:  # of a subscription: MOVED, CLUSTERDOWN; of its end: the same
            ear.refusals += 1
            return
        kind, channel, body = cast("tuple[bytes, bytes, bytes | int]", message)
        key = channel.decode()
        if kind == b"ssubscribe":
            ear.unconfirmed.discard(key)
        elif kind == b"smessage":
            self._heard.append(Hint(key, None if body == READ_IT else cast("bytes", body)))
        elif kind == b"sunsubscribe" and self._homes.get(key) is ear:
            self._homeless.add(key)
