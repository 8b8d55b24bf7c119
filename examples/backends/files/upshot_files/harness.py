"""How the conformance suite looks into a folder of results, without asking the backend."""

from __future__ import annotations

import contextlib
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

__all__ = ["FilesHarness"]


class FilesHarness(Harness):
    """A server object is a file with content: the lock and a draft just begun have none."""

    scheme: ClassVar[str] = "files"
    over_network: ClassVar[bool] = False

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self._folder = Path(unquote(url.path))

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Make a folder that nobody else uses."""
        with tempfile.TemporaryDirectory(prefix="files-") as folder:
            yield f"files://{folder}/results"

    def raw_objects(self, namespace: str) -> set[str]:
        found: set[str] = set()
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                content = path.read_bytes()
                if content and namespace.encode() in content:
                    found.add(path.name)
        return found

    def purge(self, namespace: str) -> None:
        for name in self.raw_objects(namespace):
            (self._folder / name).unlink(missing_ok=True)

    def server_version(self) -> str:
        return f"files of {platform.system()} {platform.release()}"

    def read_raw(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def ttl(self, name: str) -> float | None:
        moment = float(self.read_raw(name).split(b" ", 2)[1])
        return None if moment == float("inf") else moment - time.time()

    @contextlib.contextmanager
    def writes_blocked(self) -> Generator[None]:
        """Hold the lock: whoever writes has to wait for it."""
        with open(self._folder / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def subscriptions(self, namespace: str) -> set[str]:
        return set()  # files tell nobody anything

    def connections(self) -> int:
        """Count this process's open files: there is no server to ask."""
        return sum(f" → {self._folder}/" in each for each in open_descriptors())
