"""Results on memcached servers.

Service: memcached 1.5.3 or newer, which can read and expire an item in one step (`gat`); one server
or several, with CAS (no `-C`) and items of 1 MiB (`-I 1m`, the default). What it cannot do: keep
records across a restart; keep them when its memory is full, as it evicts then what was not used for
long (`-M` makes it refuse new records instead); enumerate; notify; check a password. So whoever
waits for a result should set a timeout: one that was evicted never comes.

Each record is on one server, see `Servers`, and in one item or several, see `layout`. Nobody ever
reads a mixture of two records: one that has lost a part is corrupt, and stays so until it expires
or is forgotten. Parts that nothing belongs to, because a writer was cut off or the head evicted,
go when they expire.

A record expires at the moment that its item says, by the clock of whoever reads, for everybody and
for the guard; the server drops the item up to 3 seconds later. So the clocks of all hosts should
agree, to well within the shortest expiry. Expiry dates after 2038-01-19 are known to the item only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.url import Url
from upshot_backends.memcached import guard, layout, reading
from upshot_backends.memcached.connection import Servers, Talk
from upshot_backends.memcached.driver import DRIVER_ERRORS, MemcacheError
from upshot_backends.memcached.guard import Write
from upshot_backends.memcached.wire import Wire

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["MemcachedBackend"]


_IN_DOUBT: Final = 0.5  # seconds for a server that failed last time, if others are asked too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The `upshot_…` parameters: there are none, so any is refused."""


class MemcachedBackend(Backend):
    """`memcached://h1:11211,h2:11211`

    Any number of servers; the port is 11211 if left out. `memcached:///run/memcached.sock` is a
    Unix socket. `cache+memcached://` is the same, as Celery writes it. There are no options of
    ours; pymemcache's are `connect_timeout` and `timeout`, in seconds, and `max_pool_size`, see
    `driver.Options`.

    Records may be evicted: this is no place for results that must not be lost.
    """

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=False,
        persistent=False,
        transactional=False,
        batch=True,
        scan=False,
        streams=True,
        visibility=0.0,
        poll_interval=0.02,
        expiry_resolution=0.05,  # by which the clocks of hosts that NTP keeps may differ
        max_record_bytes=layout.MAX_RECORD,
        max_key_bytes=layout.MAX_KEY,
        text_keys=False,
    )
    driver_errors: ClassVar = DRIVER_ERRORS

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        self._servers = Servers(url)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        until, now = clock.monotonic() + timeout, clock.now()
        writes: dict[bytes, Write] = {}
        for place, record in enumerate(records):
            key = record.key.encode()
            write = writes.get(key) or writes.setdefault(key, Write(key, now))
            write.append(place, record)
        failed = self._talk(
            writes, lambda wire, share: guard.store(wire, [writes[key] for key in share]), until
        )
        _raise(failed)
        applied = [False] * len(records)
        for write in writes.values():
            for place in write.applied:
                applied[place] = True
        return applied

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        wanted = [key.encode() for key in keys]
        distinct = dict.fromkeys(wanted)
        found: dict[bytes, bytes | Exception] = {}

        def talk(wire: Wire, share: list[bytes]) -> None:
            found.update(reading.load(wire, share))

        if failed := self._talk(distinct, talk, clock.monotonic() + timeout):
            if sum(len(share) for share, _ in failed) == len(distinct):
                _raise(failed)
            for share, error in failed:
                found |= dict.fromkeys(share, error)
        return [found.get(key) for key in wanted]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        wanted = dict.fromkeys(key.encode() for key in keys)
        _raise(self._talk(wanted, reading.remove, clock.monotonic() + timeout))

    def close(self) -> None:
        self._servers.close()

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.memcached import diagnosis  # which nobody else needs

        return diagnosis.diagnose(self._servers, timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.memcached import diagnosis  # as above

        return diagnosis.advise(said)

    def _talk(self, keys: Iterable[bytes], talk: Talk, until: float) -> _Failures:
        """Call `talk` for each server with its share of the keys.

        One that is down keeps no other from its work: its share is returned with its error.
        """
        failures: _Failures = []
        shares = self._servers.shares(keys)
        for server, share in shares:
            last = until
            if server.failed and len(shares) > 1:  # do not let all others wait for it again
                last = min(until, clock.monotonic() + _IN_DOUBT)
            try:
                server.run(talk, share, last)
            except (OSError, MemcacheError) as exc:
                failures.append((share, exc))
        return failures


_Failures = list[tuple[list[bytes], Exception]]


def _raise(failures: _Failures) -> None:
    """Raise the first of the errors, if there is any."""
    if failures:
        raise failures[0][1]
