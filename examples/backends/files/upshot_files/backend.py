"""Results in a folder, `files:///srv/results`: a file for each record, a lock for who writes.

    <SHA-256 of the key>.record    "<barrier> <when it expires> <key>", a newline, the record
    .draft                         what is being written; renaming makes a record of it
    .lock                          held by whoever writes

Readers take no lock: a file is replaced in one step, so they find the old record or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, NamedTuple
from urllib.parse import unquote

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = ["FilesBackend"]

_HEAD: Final = 2048  # bytes that hold the first line of every file: a key has at most 1024
_PAUSE: Final = 0.002  # seconds between two tries to get the lock


@dataclass(frozen=True)
class _Options:
    """There are no `upshot_…` parameters: a misspelt one is an error, not a silence."""


class _Stored(NamedTuple):
    barrier: int
    expires: float  # seconds since the epoch; infinite for "never"
    key: str
    body: bytes


class FilesBackend(Backend):
    """`files:///srv/results`: the folder is made when the first record is stored."""

    capabilities = Capabilities(
        shared=True,
        reread=True,
        intermediate=True,
        atomic=True,
        push=False,
        persistent=True,
        transactional=False,
        batch=True,
        scan=True,
        streams=True,
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.0,
        max_record_bytes=16 * 2**20,
        max_key_bytes=1024,
        text_keys=True,
    )
    contract: ClassVar[str] = "1.0"
    driver_errors: ClassVar[DriverErrors] = DriverErrors(
        transient=(BlockingIOError,), permanent=(OSError,)
    )

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        if url.hosts or url.query or not url.path:
            raise UrlError(f"{url} is no folder; write {url.scheme}:///srv/results")
        self._folder = Path(unquote(url.path))

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        deadline = time.monotonic() + timeout
        return [self._store(record, deadline - time.monotonic()) for record in records]

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = [_read(self._path(key)) for key in keys]
        return [each.body if each and each.expires > time.time() else None for each in found]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        for path in self._folder.glob("*.record"):
            found = _read(path, _HEAD)
            if found and found.expires > time.time() and found.key.startswith(prefix):
                yield found.key

    def sweep(self, limit: int, timeout: float) -> int:
        """Remove up to `limit` expired records; return how many: fewer than `limit`, no more."""
        removed = 0
        with self._locked(timeout):  # so that nobody replaces a record between look and removal
            for path in self._folder.glob("*.record"):
                found = _read(path, _HEAD)
                if found and found.expires <= time.time() and removed < limit:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        """Return the file of a key, which itself may be long, have slashes, or differ in case."""
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.record"

    def _store(self, record: StoredRecord, timeout: float) -> bool:
        path, draft = self._path(record.key), self._folder / ".draft"
        with self._locked(timeout):
            found = _read(path, _HEAD)
            if found and found.expires > time.time() and found.barrier > record.rank:
                return False
            expires = float("inf") if record.expires is None else time.time() + record.expires
            draft.write_bytes(f"{record.barrier} {expires} {record.key}\n".encode() + record.body)
            draft.replace(path)  # in one step: nobody ever reads half a file
            return True

    @contextlib.contextmanager
    def _locked(self, timeout: float) -> Generator[None]:
        """Hold the lock of the folder.

        Raises:
            BlockingIOError: others held it all the time.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout
        with open(self._folder / ".lock", "ab") as lock:
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


def _read(path: Path, most: int = -1) -> _Stored | None:
    """Return what a file holds, expired or not; None if there is none.

    Args:
        path: the file.
        most: how many bytes to read; the default reads all of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most)
    except FileNotFoundError:
        return None
    head, _, body = data.partition(b"\n")
    try:
        barrier, expires, key = head.decode().split(" ", 2)
        return _Stored(int(barrier), float(expires), key, body)
    except ValueError:  # damaged: handed on as it is, so that the reader is told, and replaceable
        return _Stored(0, float("inf"), "", data)
