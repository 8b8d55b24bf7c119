"""How the conformance suite looks into databases of `dbm.dumb`, without asking the backend."""

from __future__ import annotations

import contextlib
import dbm.dumb
import fcntl
import platform
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from upshot.url import Url
from upshot_conformance.harness import Harness
from upshot_conformance.resources import open_descriptors

__all__ = ["DbmHarness"]


class DbmHarness(Harness):
    """A server object is a key, in whatever database of the folder."""

    scheme: ClassVar[str] = "dbm"
    over_network: ClassVar[bool] = False

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._folder = Path(unquote(url.path))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Name a folder that is not there yet."""
        with tempfile.TemporaryDirectory(prefix="dbm-") as folder:
            yield f"dbm://{folder}/results"

    def raw_objects(self, namespace: str) -> set[str]:
        return {name for name in self._contents() if namespace in name}

    def purge(self, namespace: str) -> None:
        for path in self._databases():
            with _locked(path):
                kept = [(name, value) for name, value in _read(path) if namespace not in name]
                # One deletion after the other would write the whole index for each.
                with contextlib.closing(dbm.dumb.open(str(path), "n")) as database:
                    for name, value in kept:
                        database[name.encode()] = value

    def server_version(self) -> str:
        return f"dbm.dumb of Python {platform.python_version()}"

    def read_raw(self, name: str) -> bytes:
        return self._contents()[name]

    def ttl(self, name: str) -> float | None:
        head = self.read_raw(name).partition(b"\n")[0]
        moment = float(head.split(b" ")[1])
        return None if moment == float("inf") else moment - time.time()

    @contextlib.contextmanager
    def writes_blocked(self) -> Generator[None]:
        """Hold the locks of all databases, also of those that are not there yet."""
        with contextlib.ExitStack() as stack:
            for digit in "0123456789abcdef":
                stack.enter_context(_locked(self._folder / digit))
            yield

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # files tell nobody anything

    def connections(self) -> int:
        """Count this process's open files: there is no server to ask."""
        return sum(f" → {self._folder}/" in each for each in open_descriptors())

    def _databases(self) -> list[Path]:
        return [path.with_suffix("") for path in self._folder.glob("*.lock")]

    def _contents(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in self._databases():
            with _locked(path):
                found.update(_read(path))
        return found


def _read(path: Path) -> list[tuple[str, bytes]]:
    if not path.with_suffix(".dir").exists():
        return []
    with contextlib.closing(dbm.dumb.open(str(path), "r")) as database:
        return [(key.decode(), database[key]) for key in database]


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Keep everybody else out of a database."""
    with path.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
