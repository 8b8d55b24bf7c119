"""Results in databases of the module `dbm`: `dbm:///srv/results`, a folder with sixteen of them.

    <key>    "<barrier> <when it expires>", a newline, the record

A key is in the database that the SHA-256 of it begins with, `0` to `f`. The files are those of
`dbm.dumb`, which every Python has: `a.dat` and its neighbours; whoever reads or writes holds
`a.lock`. One database would do, but each operation reads the whole index of one.
"""

from __future__ import annotations

import contextlib
import dbm.dumb
import fcntl
import hashlib
import time
from collections.abc import Generator, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, cast
from urllib.parse import unquote

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = ["DbmBackend"]

_Database = MutableMapping[bytes, bytes]

_NAMES: Final = "0123456789abcdef"
_PAUSE: Final = 0.002  # seconds between two tries to get the lock
_FEW: Final = 8  # deletions that are cheaper one by one: each writes the whole index


@dataclass(frozen=True)
class _Options:
    """There are no `upshot_…` parameters: a misspelt one is an error, not a silence."""


class _Stored(NamedTuple):
    barrier: int
    expires: float  # seconds since the epoch; infinite for "never"
    body: bytes


class DbmBackend(Backend):
    """`dbm:///srv/results`: the folder is made when the first record is stored."""

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=False,
        persistent=True,
        transactional=False,
        batch=False,  # each operation reads the whole index
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.1,
        expiry_resolution=0.0,
        max_record_bytes=16 * 2**20,
        max_key_bytes=1024,
        text_keys=True,
    )
    contract: ClassVar[str] = "1.0"
    driver_errors: ClassVar[DriverErrors] = DriverErrors(
        transient=(BlockingIOError,), permanent=(OSError, dbm.dumb.error)
    )

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        if url.hosts or url.query or not url.path.strip("/"):
            raise UrlError(f"{url} is no folder; write {url.scheme}:///srv/results")
        self._folder = Path(unquote(url.path))

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout
        applied = dict.fromkeys(range(len(records)), False)
        for name, places in _by_database([record.key for record in records]):
            (self._folder / f"{name}.lock").touch()
            with self._database(name, "c", deadline - time.monotonic()) as database:
                for place in places:
                    applied[place] = _store(database, records[place])
        return list(applied.values())

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        deadline = time.monotonic() + timeout
        bodies: list[bytes | None] = [None] * len(keys)
        for name, places in _by_database(keys):
            with self._database(name, "r", deadline - time.monotonic()) as database:
                for place in places:
                    found = _read(database, keys[place].encode())
                    if found and found.expires > time.time():
                        bodies[place] = found.body
        return bodies

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for name, places in _by_database(keys):
            with self._database(name, "c", deadline - time.monotonic()) as database:
                unwanted = {keys[place].encode() for place in places}
                _remove(database, self._folder / name, unwanted)

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        for name in _NAMES:
            with self._database(name, "r", timeout) as database:
                keys = [key for key in database if key.startswith(prefix.encode())]
                found = [(key, _read(database, key)) for key in keys]
            for key, stored in found:
                if stored and stored.expires > time.time():
                    yield key.decode()

    def sweep(self, limit: int, timeout: float) -> int:
        """Remove up to `limit` expired records; return how many: fewer than `limit`, no more."""
        removed = 0
        for name in _NAMES:
            with self._database(name, "c", timeout) as database:
                now = time.time()
                found = ((key, _read(database, key)) for key in list(database))
                expired = sorted(key for key, stored in found if stored and stored.expires <= now)
                unwanted = set(expired[: limit - removed])
                _remove(database, self._folder / name, unwanted)
            removed += len(unwanted)
        return removed

    @contextlib.contextmanager
    def _database(self, name: str, flag: str, timeout: float) -> Generator[_Database]:
        """Open a database, alone; an empty dict if nothing was ever stored in it.

        That is asked of the lock, which is made once and stays: while others write, the database's
        own files come and go. So reading makes nothing.
        """
        path, lock = self._folder / name, self._folder / f"{name}.lock"
        if not lock.exists():
            yield {}
            return
        with _locked(lock, timeout):
            if flag == "r" and not (self._folder / f"{name}.dir").exists():
                yield {}
                return
            with _opened(path, flag) as database:
                yield database


def _by_database(keys: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Yield each database that keys are in, with their places in the sequence, in order."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(hashlib.sha256(key.encode()).hexdigest()[0], []).append(place)
    yield from places.items()


@contextlib.contextmanager
def _opened(path: Path, flag: str) -> Generator[_Database]:
    """Open a database for one operation: it reads its index when opened, and never again.

    Args:
        path: the files' common name.
        flag: as `dbm.open` takes it.
    """
    with contextlib.closing(dbm.dumb.open(str(path), flag, 0o600)) as database:
        yield cast("_Database", database)  # its hints allow text as well


@contextlib.contextmanager
def _locked(path: Path, timeout: float) -> Generator[None]:
    """Hold a lock: readers too, for a lock that many share is never free for the one who writes.

    Args:
        path: the lock's file.
        timeout: seconds to wait for it.

    Raises:
        BlockingIOError: others held it all the time.
    """
    deadline = time.monotonic() + timeout
    with path.open("rb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do: a fork shares the lock


def _store(database: _Database, record: StoredRecord) -> bool:
    key = record.key.encode()
    found = _read(database, key)
    if found and found.expires > time.time() and found.barrier > record.rank:
        return False
    expires = float("inf") if record.expires is None else time.time() + record.expires
    database[key] = f"{record.barrier} {expires}\n".encode() + record.body
    return True


def _remove(database: _Database, path: Path, keys: set[bytes]) -> None:
    """Remove keys, by writing the whole database anew if they are many; that closes its gaps."""
    gone = keys.intersection(database)
    if len(gone) <= _FEW:
        for key in gone:
            del database[key]
        return
    kept = {key: database[key] for key in set(database) - gone}
    with _opened(path, "n") as fresh:
        for key, value in kept.items():
            fresh[key] = value


def _read(database: _Database, key: bytes) -> _Stored | None:
    """Return what is stored under a key, expired or not."""
    data = database.get(key)
    if data is None:
        return None
    head, _, body = data.partition(b"\n")
    try:
        barrier, expires = head.decode().split(" ")
        return _Stored(int(barrier), float(expires), body)
    except ValueError:  # damaged: handed on as it is, so that the reader is told, and replaceable
        return _Stored(0, float("inf"), data)
