"""Results on a Redis server.

Service: Redis 6.0 or newer, one server (no Cluster, no Sentinel). What it cannot do: keep records
across a restart unless the server is configured to (`appendonly yes`); roll back. A batch is sent
in parts of 4 MiB so that no script holds up the server, and each part is applied as a whole.

Layout:

    <key>            string: the barrier in 10 digits, then the encoded record; expires by itself
    <key>@<number>   pub/sub channel: terminal records, deletions; <number> is the database,
                     because channels, unlike keys, are shared by all databases of a server

A published message is the encoded record if it has at most 8 KiB, "?" if it has to be read, and
empty if the record was deleted. A server that restricts channels by ACL must allow these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, cast

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.url import Url
from upshot.waiting import Listener
from upshot_backends.redis.connection import RedisClient, milliseconds, script
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.listener import RedisListener

__all__ = ["RedisBackend", "record_arguments"]

_BARRIER: Final = 10  # bytes before the encoded record
_PART: Final = 4 * 2**20  # bytes of records in one script call: a few milliseconds of the server
_KEYS: Final = 1000  # keys in one command
_ESCAPED: Final = str.maketrans({character: "\\" + character for character in "*?[]^\\"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The `upshot_…` parameters: there are none, so any is refused."""


class RedisBackend(Backend):
    """`redis://:password@localhost:6379/0`

    `rediss://` is the same over TLS, with certificates verified unless `?ssl_cert_reqs=none`;
    `redis+unix:///run/redis.sock?db=0` goes through a Unix socket. There are no options of ours;
    the others are redis-py's (`ssl_ca_certs`, `protocol`, `socket_connect_timeout` in seconds, …),
    see `RedisClient`.
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
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.001,
        max_record_bytes=256 * 2**20,  # the server's limit for one string is 512 MiB
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        self.url = url
        self._client = RedisClient(url)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        suffix = self.channel_suffix
        calls = [
            (
                [record.key for record in part],
                [suffix, *(value for record in part for value in record_arguments(record))],
            )
            for part in _parts(records)
        ]
        answers = self._client.run(script("guard", "store"), calls, timeout)
        return [applied == 1 for part in answers for applied in cast("list[int]", part)]

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        if not keys:
            return []
        values = cast("list[bytes | None]", self._client.call("MGET", *keys, timeout=timeout))
        return [None if value is None else value[_BARRIER:] for value in values]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        parts = [keys[start : start + _KEYS] for start in range(0, len(keys), _KEYS)]
        self._client.run(
            script("delete"), [(part, [self.channel_suffix]) for part in parts], timeout
        )

    def close(self) -> None:
        self._client.close()

    def listen(self, timeout: float) -> Listener:
        return RedisListener(self._client, suffix=self.channel_suffix, timeout=timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        pattern = prefix.translate(_ESCAPED) + "*"
        cursor = b"0"
        while True:
            page = self._client.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS, timeout=timeout
            )
            cursor, keys = cast("tuple[bytes, list[bytes]]", page)
            for key in keys:
                try:
                    yield key.decode()
                except UnicodeDecodeError:
                    continue  # no key of ours
            if cursor == b"0":
                return

    @property
    def channel_suffix(self) -> str:
        """What makes a record's key its channel."""
        return f"@{self._client.database}"


def record_arguments(record: StoredRecord) -> tuple[int, bytes, int]:
    """Return the rank, value and expiry that `guard.lua` takes."""
    return record.rank, b"%010d%b" % (record.barrier, record.body), milliseconds(record.expires)


def _parts(records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Cut a batch, in order, into parts of at most `_PART` bytes and `_KEYS` records."""
    part: list[StoredRecord] = []
    size = 0
    for record in records:
        if part and (size + len(record.body) > _PART or len(part) == _KEYS):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.body)
    if part:
        yield part
