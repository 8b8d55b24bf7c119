"""Results in the dict of a server: `dict://localhost:7077`."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url

from .connection import Connection, Message, RefusedError
from .listener import DictListener
from .server import DEFAULT_PORT

__all__ = ["DictBackend"]

_PART: Final = 2**22  # bytes of records in one message: a moment's work for the server


@dataclass(frozen=True)
class _Options:
    """There are no `upshot_…` parameters: a misspelt one is an error, not a silence."""


class DictBackend(Backend):
    """`dict://host:port`. Calls of several threads go over several connections."""

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
        expiry_resolution=0.0,
        max_record_bytes=16 * 2**20,
        max_key_bytes=1024,
        text_keys=True,
    )
    contract: ClassVar[str] = "1.0"
    driver_errors: ClassVar[DriverErrors] = DriverErrors(
        transient=(OSError,), permanent=(RefusedError,)
    )

    def __init__(self, url: Url) -> None:
        url.read_options(_Options)
        if len(url.hosts) != 1 or url.path.strip("/") or url.query or url.username:
            raise UrlError(f"{url} should be {url.scheme}://host:port and nothing else")
        host, port = url.hosts[0]
        self._address = (host, port or DEFAULT_PORT)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        deadline = time.monotonic() + timeout
        applied: list[bool] = []
        for part in _parts(records):
            rows = [
                [each.key, each.rank, each.barrier, each.expires, _text(each.body)] for each in part
            ]
            answer = self._ask({"do": "store", "records": rows}, deadline - time.monotonic())
            applied += answer["applied"]
        return applied

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        answer = self._ask({"do": "load", "keys": list(keys)}, timeout)
        return [None if body is None else base64.b64decode(body) for body in answer["bodies"]]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self._ask({"do": "delete", "keys": list(keys)}, timeout)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def listen(self, timeout: float) -> DictListener:
        return DictListener(self._address, timeout)

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        yield from self._ask({"do": "scan", "prefix": prefix}, timeout)["keys"]

    def _ask(self, request: Message, timeout: float) -> Message:
        """Ask over a connection that nobody uses, or a new one."""
        deadline = time.monotonic() + timeout
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or Connection(self._address, timeout)
        try:
            answer = connection.ask(request, deadline - time.monotonic())
        except BaseException:
            connection.close()
            self._drop_idle()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return answer
        connection.close()  # `close` was called meanwhile
        return answer

    def _drop_idle(self) -> None:
        """Close what is idle: if the server has gone, each would fail one more call."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _parts(records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Cut a batch, in order, into parts of at most `_PART` bytes, or of one long record."""
    part: list[StoredRecord] = []
    size = 0
    for record in records:
        if part and size + len(record.body) > _PART:
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.body)
    if part:
        yield part


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")
