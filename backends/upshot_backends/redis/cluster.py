"""Where a key's server lives in a cluster: on the master that serves the key's slot."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple, cast, final

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from upshot import clock
from upshot.errors import UrlError
from upshot.url import Url
from upshot_backends.redis.client import NoOptions, RedisClient
from upshot_backends.redis.driver import (
    Argument,
    Connection,
    Options,
    Reply,
    server_options,
)
from upshot_backends.redis.server import Server

__all__ = ["ClusterClient"]

_PORT: Final = 6379
_HOPS: Final = 5  # times that a command follows MOVED or ASK; one or two are usual
_REST: Final = 0.1  # seconds between two questions for the map
_SILENCE: Final = 1.0  # seconds after which another node is asked for the map
_KEY_AT: Final = {"EVALSHA": 3, "EVAL": 3}  # where a command has its first key; otherwise at 1

_Address = tuple[str, int]
_Answer = Reply | redis.ResponseError


class _Trip(NamedTuple):
    """Commands, by their numbers, on their way to one server."""

    server: Server
    asking: bool  # the server does not serve their slot yet, and takes them if told that we know
    numbers: list[int]


class _Node(Server):
    """A node of a cluster: whatever goes wrong with it may mean that its slots have moved."""

    def __init__(self, options: Options, on_doubt: Callable[[], None]) -> None:
        super().__init__(options)
        self.failed_at = float("-inf")
        self._on_doubt = on_doubt

    def _doubt(self) -> None:
        self.failed_at = clock.monotonic()
        self._on_doubt()


@final
class ClusterClient(RedisClient):
    """A Redis Cluster, found through any of its nodes.

        redis+cluster://[[user]:password@]host[:6379][,host[:6379]…][/0]

    A few hosts will do, as they know the others. User, password and redis-py's parameters are for
    all nodes; with `rediss+cluster` all of them speak TLS. The only database is number 0.

    A command goes to the master that serves its first key's slot, those of a batch in one write
    per node. Whoever answers MOVED or ASK is followed. An error that may mean a fail-over is
    raised, and the map of slots is asked for anew before the next try.

    Args:
        url: as above.

    Raises:
        UrlError: redis-py does not take a parameter, or the path is not /0.
    """

    keys_per_call: ClassVar[int] = 1
    pubsub: ClassVar[str] = "sharded"

    def __init__(self, url: Url) -> None:
        super().__init__()
        url.read_options(NoOptions)
        if url.path.strip("/") not in ("", "0"):
            raise UrlError(f"{url}: a cluster has no other database than /0")
        self._options = server_options(url, "0", username=url.username, password=url.password)
        if self._options.get("db"):
            raise UrlError(f"{url}: a cluster has no other database than 0")
        hosts = url.hosts or (("localhost", None),)
        self._seeds: list[_Address] = [(host, port or _PORT) for host, port in hosts]
        self._lock = threading.Lock()
        self._servers: dict[_Address, _Node] = {}
        self._slots: list[Server | None] = []
        self._outdated = True
        self._asked_at = float("-inf")

    def server(self, key: str, timeout: float) -> Server:
        """Return the master that serves `key`.

        Raises:
            ClusterDownError: none does.
            redis.RedisError: no node could be asked.
        """
        return self._server_of(key, self._map(clock.monotonic() + timeout))

    def servers(self, timeout: float) -> Sequence[Server]:
        """Return the masters that serve any slot."""
        self.doubt()
        slots = self._map(clock.monotonic() + timeout)
        return [server for server in dict.fromkeys(slots) if server is not None]

    def doubt(self) -> None:
        """Ask for the map anew before it is used the next time, but not too often."""
        self._outdated = True

    def close(self) -> None:
        self.closed = True
        for server in list(self._servers.values()):
            server.close()

    # -- commands -------------------------------------------------------------------------------

    def _exchange(self, commands: Sequence[Sequence[Argument]], until: float) -> list[_Answer]:
        answers: list[_Answer] = [None] * len(commands)
        trips = self._first_trips(commands, until)
        for _ in range(_HOPS):
            trips = self._travel(trips, commands, answers, until)
            if not trips:
                return answers
        raise TryAgainError("the cluster sends its client from node to node; a slot is moving")

    def _first_trips(self, commands: Sequence[Sequence[Argument]], until: float) -> list[_Trip]:
        slots = self._map(until)
        trips: dict[Server, _Trip] = {}
        for number, command in enumerate(commands):
            key = cast("str", command[_KEY_AT.get(cast("str", command[0]), 1)])
            server = self._server_of(key, slots)
            if server not in trips:
                trips[server] = _Trip(server, False, [])
            trips[server].numbers.append(number)
        return list(trips.values())

    def _travel(
        self,
        trips: Sequence[_Trip],
        commands: Sequence[Sequence[Argument]],
        answers: list[_Answer],
        until: float,
    ) -> list[_Trip]:
        """Make all trips at once, note the answers, and return the trips that must follow."""
        flights: list[tuple[_Trip, Connection]] = []
        failures: list[Exception] = []
        further: dict[tuple[Server, bool], _Trip] = {}
        try:
            for trip in trips:
                try:
                    flights.append((trip, trip.server.send(_luggage(trip, commands), until)))
                except (redis.RedisError, ssl.SSLCertVerificationError) as exc:
                    failures.append(exc)
            while flights:
                trip, connection = flights.pop()
                try:
                    found = trip.server.receive(connection, len(trip.numbers) * (1 + trip.asking))
                except redis.RedisError as exc:
                    failures.append(exc)
                    continue
                told = found[1::2] if trip.asking else found
                for number, answer in zip(trip.numbers, told, strict=True):
                    answers[number] = answer
                    if isinstance(answer, (AskError, ClusterDownError)):
                        self._follow(answer, trip.server, number, further)
        finally:  # answers that nobody reads must not be taken for the next command's
            for trip, connection in flights:
                trip.server.discard(connection)
        if failures:
            raise failures[0]
        return list(further.values())

    def _follow(
        self,
        answer: AskError | ClusterDownError,
        asked: Server,
        number: int,
        further: dict[tuple[Server, bool], _Trip],
    ) -> None:
        """Note where a command has to go next, if it was sent on."""
        if isinstance(answer, ClusterDownError):
            self.doubt()
            return
        moved = isinstance(answer, MovedError)
        host, port = cast("_Address", cast("Any", answer).node_addr)
        server = self._server_at((host or asked.host, port))  # without a name: the one we used
        if moved:
            self._slots[answer.slot_id] = server
            self.doubt()  # where one slot moved, others will have
        place = (server, not moved)
        further.setdefault(place, _Trip(server, not moved, [])).numbers.append(number)

    # -- the map --------------------------------------------------------------------------------

    def _server_of(self, key: str, slots: Sequence[Server | None]) -> Server:
        slot = key_slot(key.encode())
        server = slots[slot]
        if server is None:
            self.doubt()
            raise ClusterDownError(f"no node of the cluster serves the slot {slot}")
        return server

    def _server_at(self, address: _Address) -> _Node:
        server = self._servers.get(address)
        if server is None:
            options = {**self._options, "host": address[0], "port": address[1]}
            server = self._servers.setdefault(address, _Node(options, self.doubt))
            if self.closed:
                server.close()
        return server

    def _map(self, until: float) -> list[Server | None]:
        """Return which server serves which slot, asked for now if there is reason to."""
        if not self._is_due():
            return self._slots
        if not self._lock.acquire(timeout=max(0.0, until - clock.monotonic())):
            raise redis.TimeoutError("no node has told another thread the cluster's map in time")
        try:
            if self.closed:
                raise redis.ConnectionError("this client is closed")
            if self._is_due():  # no other thread has asked meanwhile
                self._outdated = False
                self._asked_at = clock.monotonic()
                self._learn(until)
            return self._slots
        finally:
            self._lock.release()

    def _is_due(self) -> bool:
        rested = clock.monotonic() >= self._asked_at + _REST
        return not self._slots or (self._outdated and rested)

    def _learn(self, until: float) -> None:
        """Ask one node after the other for the map until one tells.

        Those that failed last are asked last, and none gets all the time that is left. If none
        tells, the old map stays.

        Raises:
            redis.RedisError: none tells, and there is no old map.
        """
        nodes = [self._server_at(at) for at in dict.fromkeys([*self._servers, *self._seeds])]
        nodes.sort(key=lambda node: node.failed_at)
        failure: Exception | None = None
        for left, node in zip(range(len(nodes), 0, -1), nodes, strict=True):
            share = min(_SILENCE, max(0.0, until - clock.monotonic()) / left)
            try:
                told = node.call("CLUSTER", "SLOTS", timeout=share)
                if not told:
                    raise ClusterDownError(f"{node.host} knows of no slot")
                self._redraw(cast("list[list[object]]", told), node)
            except (redis.RedisError, ssl.SSLCertVerificationError) as exc:
                failure = exc
            else:
                return
        self._outdated = True
        if failure is not None and not self._slots:
            raise failure

    def _redraw(self, ranges: Sequence[Sequence[object]], told_by: Server) -> None:
        """Take over what CLUSTER SLOTS answered."""
        slots: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, master, *_ in cast(
            "list[tuple[int, int, list[bytes | int | None]]]", ranges
        ):
            name, port = cast("tuple[bytes | None, int]", tuple(master[:2]))
            # A node that does not know its own name leaves it out: the one that was used will do.
            server = self._server_at((name.decode() if name else told_by.host, port))
            slots[first : last + 1] = [server] * (last + 1 - first)
        self._slots = slots
        serving = set(slots)
        for address, server in list(self._servers.items()):
            if server not in serving:
                del self._servers[address]
                server.retire()


def _luggage(trip: _Trip, commands: Sequence[Sequence[Argument]]) -> list[Sequence[Argument]]:
    """Return what is sent on a trip."""
    if not trip.asking:
        return [commands[number] for number in trip.numbers]
    return [part for number in trip.numbers for part in (("ASKING",), commands[number])]
