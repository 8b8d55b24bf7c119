"""Results in a folder: `folder:///var/results`. One file per record, one lock for all writers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_conformance.harness import Harness

_HEAD = struct.Struct("!qdI")  # barrier, when it expires, length of the key


class FolderBackend(Backend):
    """Every hook is a few system calls; replacing a file is atomic, so readers need no lock."""

    driver_errors = DriverErrors(permanent=(OSError,))
    capabilities = Capabilities(
        shared=True, reread=True, intermediate=True, atomic=True, push=False, persistent=True,
        transactional=False, batch=False, scan=True, streams=True, visibility=0.0,
        poll_interval=0.02, expiry_resolution=0.0, max_record_bytes=2**24, max_key_bytes=1024,
        text_keys=True,
    )  # fmt: skip

    def __init__(self, url: Url) -> None:
        self._folder = Path(url.path)

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        with self._locked():
            return [self._store(record) for record in records]

    def _store(self, record: StoredRecord) -> bool:
        path = self._path(record.key)
        found = _read(path)
        if found and found[0] > record.rank:
            return False
        key = record.key.encode()
        expires_at = time.time() + record.expires if record.expires else float("inf")
        new = path.with_suffix(".new")
        new.write_bytes(_HEAD.pack(record.barrier, expires_at, len(key)) + key + record.body)
        new.replace(path)
        return True

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        found = [_read(self._path(key)) for key in keys]
        return [each and each[3] for each in found]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        with self._locked():
            for key in keys:
                self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is open."""

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        for path in self._folder.glob("*.record"):
            found = _read(path)
            if found and found[2].startswith(prefix):
                yield found[2]

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.record"

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing would not do: a child forked meanwhile has the same lock open.
                fcntl.flock(lock, fcntl.LOCK_UN)


class BareFolderBackend(FolderBackend):
    """The same, for which nobody wrote a harness."""


def _read(path: Path) -> tuple[int, float, str, bytes] | None:
    """Return barrier, expiry, key and body of a record that has not expired."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    barrier, expires_at, length = _HEAD.unpack_from(data)
    body = data[_HEAD.size + length :]
    key = data[_HEAD.size : _HEAD.size + length].decode()
    return (barrier, expires_at, key, body) if expires_at > time.time() else None


class FolderHarness(Harness):
    """A server object is a file, the lock excepted."""

    scheme: ClassVar[str] = "folder"
    over_network: ClassVar[bool] = False

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"folder://{folder}"

    def raw_objects(self, namespace: str) -> set[str]:
        return {
            path.name
            for path in Path(self.url.path).glob("*")
            if path.name != "lock" and namespace.encode() in path.read_bytes()
        }

    def purge(self, namespace: str) -> None:
        for name in self.raw_objects(namespace):
            (Path(self.url.path) / name).unlink()

    def server_version(self) -> str:
        return f"files of {os.uname().sysname}"

    def read_raw(self, name: str) -> bytes:
        return (Path(self.url.path) / name).read_bytes()

    def ttl(self, name: str) -> float | None:
        expires_at: float = _HEAD.unpack_from(self.read_raw(name))[1]
        return None if expires_at == float("inf") else expires_at - time.time()

    def subscriptions(self, namespace: str) -> set[str]:
        return set()

    def connections(self) -> int:
        return 0
