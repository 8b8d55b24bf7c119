"""Results on a Redis server.

Service: Redis 6.0 or newer: one server, a master behind sentinels, or a cluster (7.0 or newer,
because it needs sharded channels). What it cannot do: keep records across a restart unless the
server is configured to (`appendonly yes`); keep those that a master took and had not replicated
when it failed; roll back. A batch is sent in parts of 4 MiB so that no script holds up the server,
and each part is applied as a whole; in a cluster each record is a part, and `scan` may miss keys
that move to another node meanwhile.

Layout:

    <key>            string: the barrier in 10 digits, then the encoded record; expires by itself
    <key>@<number>   pub/sub channel: terminal records, deletions; <number> is the database,
                     because channels, unlike keys, are shared by all databases of a server

In a cluster, which has one database, the channel has the name of the key, and is sharded: so both
are in one slot, whatever braces the key has.

A published message is the encoded record if it has at most 8 KiB, "?" if it has to be read, and
empty if the record was deleted. A server that restricts channels by ACL must allow these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Listener
from upshot.url import Url
from upshot_backends.redis.client import milliseconds, script
from upshot_backends.redis.cluster import ClusterClient
from upshot_backends.redis.cluster_listener import ClusterListener
from upshot_backends.redis.connection import open_client
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.listener import RedisListener
from upshot_backends.redis.server import Server

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["RedisBackend", "record_arguments"]

_BARRIER: Final = 10  # bytes before the encoded record
_PART: Final = 4 * 2**20  # bytes of records in one script call: a few milliseconds of the server
_PAGE: Final = 1000  # keys looked at by one SCAN
_ESCAPED: Final = str.maketrans({character: "\\" + character for character in "*?[]^\\"})


class RedisBackend(Backend):
    """`redis://:password@localhost:6379/0`

    `rediss://` is the same over TLS, with certificates verified unless `?ssl_cert_reqs=none`;
    `redis+unix:///run/redis.sock?db=0` goes through a Unix socket. `redis+sentinel://h1,h2,h3/name`
    asks sentinels for the master, see `SentinelClient`; `redis+cluster://h1,h2,h3` finds the
    cluster through any of its nodes, see `ClusterClient`; both have `rediss+…` for TLS. `valkey`
    may stand for `redis` everywhere. All parameters without `upshot_` are redis-py's
    (`ssl_ca_certs`, `protocol`, `socket_connect_timeout` in seconds, …), see `driver_options`.
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=True,
        persistent=False,
        transactional=False,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=256 * 2**20,  # the server's limit for one string is 512 MiB
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url) -> None:
        self.url = url
        self._client = open_client(url)
        self.in_cluster = isinstance(self._client, ClusterClient)
        """True where each record may live on another server."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        suffix, most = self.channel_suffix, self._client.keys_per_call
        calls = [
            (
                [record.key for record in part],
                [suffix, *(value for record in part for value in record_arguments(record))],
            )
            for part in _parts(records, most)
        ]
        store = script(self._client.pubsub, "guard", "store")
        answers = self._client.run(store, calls, timeout)
        return [applied == 1 for part in answers for applied in cast("list[int]", part)]

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        answers = self._client.ask([("MGET", *part) for part in self._cut(keys)], timeout)
        values = [value for part in answers for value in cast("list[bytes | None]", part)]
        return [None if value is None else value[_BARRIER:] for value in values]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        calls = [(part, [self.channel_suffix]) for part in self._cut(keys)]
        self._client.run(script(self._client.pubsub, "delete"), calls, timeout)

    def close(self) -> None:
        self._client.close()

    def listen(self, timeout: float) -> Listener:
        client = self._client
        if isinstance(client, ClusterClient):
            return ClusterListener(client, timeout=timeout)
        until = clock.monotonic() + timeout
        server = client.server("", timeout)
        return RedisListener(server, suffix=self.channel_suffix, timeout=until - clock.monotonic())

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        pattern = prefix.translate(_ESCAPED) + "*"
        until = clock.monotonic() + timeout
        servers = self._client.servers(timeout)
        left = until - clock.monotonic()  # a cluster that is silent has used it up by now
        for server in servers:
            yield from _scan(server, pattern, left)

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.redis import diagnosis  # which nobody else needs

        return diagnosis.diagnose(self._client, timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.redis import diagnosis  # as above

        return diagnosis.advise(said)

    @property
    def channel_suffix(self) -> str:
        """What makes a record's key its channel."""
        return "" if self.in_cluster else f"@{self._client.database}"

    def _cut(self, keys: Sequence[str]) -> list[Sequence[str]]:
        """Cut keys, in order, into parts of which each fits into one call."""
        most = self._client.keys_per_call
        return [keys[start : start + most] for start in range(0, len(keys), most)]


def record_arguments(record: StoredRecord) -> tuple[int, bytes, int]:
    """Return the rank, value and expiry that `guard.lua` takes."""
    return record.rank, b"%010d%b" % (record.barrier, record.body), milliseconds(record.expires)


def _parts(records: Sequence[StoredRecord], most: int) -> Iterator[list[StoredRecord]]:
    """Cut a batch, in order, into parts of at most `_PART` bytes and `most` records."""
    part: list[StoredRecord] = []
    size = 0
    for record in records:
        if part and (size + len(record.body) > _PART or len(part) == most):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.body)
    if part:
        yield part


def _scan(server: Server, pattern: str, timeout: float) -> Iterator[str]:
    """Yield the keys of one server that are text and match the pattern."""
    cursor = b"0"
    while True:
        page = server.call("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE, timeout=timeout)
        cursor, keys = cast("tuple[bytes, list[bytes]]", page)
        for key in keys:
            try:
                yield key.decode()
            except UnicodeDecodeError:
                continue  # no key of ours
        if cursor == b"0":
            return
