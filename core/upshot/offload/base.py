"""Puts large results elsewhere, and leaves in the record where and what they are.

A file is called `owner/digest.end`: the SHA-256 of namespace and id, so that no id chooses a path;
the SHA-256 of what is in it; and the second at which the record has expired, 0 for never. What is
in a record is that name and the file's size, so whoever holds the record to be genuine knows the
file to be genuine too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar, final
from urllib.parse import unquote

from upshot import clock
from upshot.content_types import encrypted_as, encryption_of, offloaded_as, offloaded_of
from upshot.errors import (
    ConfigError,
    CorruptRecordError,
    DecodeError,
    PayloadMissingError,
    PayloadTooLargeError,
    ServiceError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.interrupts import shield
from upshot.keyring import Keyring, RefusedError
from upshot.offload.folder import Folder
from upshot.offload.place import Place
from upshot.offload.remote import Remote
from upshot.record import Payload, printable
from upshot.retrying import hide_secrets
from upshot.url import Url

__all__ = ["Offload"]

T = TypeVar("T")

_FILE: Final = b"upshot file"  # what an encrypted file is authenticated with, and its owner
_NAME: Final = re.compile(r"(?P<owner>[0-9a-f]{64})/(?P<digest>[0-9a-f]{64})\.(?P<end>\d{1,12})")
_DRAFT: Final = re.compile(r"[0-9a-f]{64}/[0-9a-f]{32}\.(?P<begun>\d{1,12})\.part")
_REFERENCE: Final = re.compile(rf"(?P<name>{_NAME.pattern}) (?P<size>\d{{1,15}})")
_ROOM: Final = 8192  # bytes of a record that are kept for all but the two payloads
_HOUR: Final = 3600  # seconds
_SLACK: Final = 3600.0  # seconds: a record may be stored later than it was made, by another clock
_DAY: Final = 86_400.0  # seconds after which an unfinished file is nobody's any more
_NEVER: Final = 1e11  # seconds: 3000 years, for which 12 digits are enough


class _MissingError(ServiceUnavailableError):
    """There is no such file."""


_AWAY: Final = ServiceUnavailableError
_KINDS: Final[dict[type[Exception], type[ServiceError]]] = {
    FileNotFoundError: _MissingError,
    PermissionError: ServiceRejectedError,
    NotADirectoryError: ServiceRejectedError,
    IsADirectoryError: ServiceRejectedError,
}


@final
class Offload:
    """The place for the large results of one namespace.

    Args:
        url: `file:///folder`, or a URL of fsspec.
        namespace: as everywhere.
        keyring: encrypts the files, if it encrypts.
        threshold: bytes of an outcome, from which on it is put here; None for what does not fit
            into a record.
        max_bytes: the largest file that is read.

    Raises:
        ConfigError: the URL is none, or names a folder of another machine.
        DriverMissingError: fsspec, or what it needs, is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        keyring: Keyring,
        threshold: int | None = None,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        self._url = Url.parse(url)
        self._place = _place(self._url, url)
        self._namespace = namespace.encode(errors="surrogatepass")
        self._keyring = keyring
        self._threshold = threshold
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<Offload {self._url}>"

    def put(self, task_id: str, outcome: Payload, room: int, expires: float | None) -> Payload:
        """Return `outcome`, or if it is too long, a reference to the file where it is now.

        Args:
            task_id: whose it is.
            outcome: not yet encrypted.
            room: bytes that the backend takes for both payloads and all else.
            expires: seconds that the record will be kept; None for ever.

        Raises:
            PayloadTooLargeError: nobody could read it: it is larger than `max_bytes`.
            ServiceError: the file cannot be written.
        """
        content_type, data = outcome
        longest = room - _ROOM if self._threshold is None else min(self._threshold, room - _ROOM)
        if len(data) <= longest or offloaded_of(content_type) or encryption_of(content_type)[1]:
            return outcome
        owner = self._owner(task_id)
        if self._keyring.encrypts:
            where = (_FILE, owner.encode(), content_type.encode())
            key_id, data = self._keyring.encrypt(data, where)
            content_type = encrypted_as(content_type, key_id)
        self._check_size(len(data), f"the value of task {printable(task_id)!r}")
        name = f"{owner}/{hashlib.sha256(data).hexdigest()}.{_end(expires)}"
        self._do(partial(self._place.write, name, data))
        return Payload(offloaded_as(content_type), f"{name} {len(data)}".encode())

    def check(self, task_id: str, outcome: Payload) -> None:
        """Check that an outcome, if it is a reference, leads to a file of this task.

        Raises:
            CorruptRecordError: it leads nowhere, or to another task's file.
        """
        if offloaded_of(outcome.content_type) is not None:
            found = _reference(outcome.body)
            if found is None or found["owner"] != self._owner(task_id):
                raise CorruptRecordError("it refers to a value that is not its own")

    def fetch(self, content_type: str, reference: bytes) -> tuple[str, bytes]:
        """Return what a reference leads to, decrypted if its key is here.

        Args:
            content_type: of what is in the file.
            reference: as in the record.

        Raises:
            PayloadMissingError: there is no such file.
            PayloadTooLargeError: it is longer than `max_bytes`.
            DecodeError: it is not the file that was put there.
            ServiceError: it cannot be read.
        """
        found = _reference(reference)
        if found is None:
            raise DecodeError("the record does not say where its value is")
        name, size = found["name"], int(found["size"])
        self._check_size(size, "a value")
        try:
            data = self._do(partial(self._place.read, name, size))
        except _MissingError as exc:
            raise PayloadMissingError(
                f"a value that was put to {self._url} is not there: it was removed, or this is "
                "another place than its worker's"
            ) from exc
        if len(data) != size or hashlib.sha256(data).hexdigest() != found["digest"]:
            raise DecodeError(f"the file {name} at {self._url} is not what was put there")
        inside, key_id = encryption_of(content_type)
        if not key_id or not self._keyring.knows(key_id):
            return content_type, data
        try:
            where = (_FILE, found["owner"].encode(), inside.encode())
            return inside, self._keyring.decrypt(key_id, data, where)
        except RefusedError as exc:
            raise DecodeError(f"the file {name} at {self._url}: {exc}") from exc

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the files of these tasks; unknown ids are fine.

        Raises:
            ServiceError: a file cannot be removed.
        """
        for task_id in task_ids:
            owner = self._owner(task_id)
            self._do(partial(self._place.remove_owner, owner))

    def prune(self) -> int:
        """Remove the files whose records have expired for an hour; return how many.

        Files of other namespaces at the same place are removed likewise; what is not called as
        ours are is left alone.

        Raises:
            ServiceError: the place cannot be read or written to.
        """
        now, removed = clock.now(), 0
        for name in self._do(lambda: list(self._place.names())):
            file, draft = _NAME.fullmatch(name), _DRAFT.fullmatch(name)
            is_over = (file and 0 < int(file["end"]) < now - _SLACK) or (
                draft and int(draft["begun"]) < now - _DAY
            )
            if is_over:
                self._do(partial(self._place.remove, name))
                removed += 1
        return removed

    def _owner(self, task_id: str) -> str:
        text = task_id.encode()
        size = len(self._namespace).to_bytes(4, "big")
        return hashlib.sha256(size + self._namespace + text).hexdigest()

    def _check_size(self, size: int, what: str) -> None:
        if size > self._max_bytes:
            raise PayloadTooLargeError(
                f"{what} at {self._url} has {size} bytes; result_max_bytes allows at most "
                f"{self._max_bytes}",
                size=size,
                limit=self._max_bytes,
            )

    def _do(self, action: Callable[[], T]) -> T:
        """Return what `action` does; whatever a file system raises, callers know the error.

        No time limit of a task interrupts it.
        """
        try:
            with shield():
                return action()
        except UpshotError:
            raise
        except Exception as exc:  # fsspec has drivers for anything, and so have their errors
            kind = next((kind for each, kind in _KINDS.items() if isinstance(exc, each)), _AWAY)
            reason = printable(self._url.scrub(str(exc))) or type(exc).__name__
            error = kind(f"result_offload {self._url}: {reason}")
            error.__cause__ = exc
            hide_secrets(error, self._url)
            raise error from error.__cause__


def _end(expires: float | None) -> int:
    """Return the second that stands in a name: of a full hour, so that trying again and again to
    store one record leaves one file, not many; 0 for never."""
    if expires is None or expires > _NEVER:
        return 0
    return math.ceil((clock.now() + expires) / _HOUR) * _HOUR


def _reference(body: bytes) -> re.Match[str] | None:
    return _REFERENCE.fullmatch(body.decode("ascii", "replace"))


def _place(url: Url, text: str) -> Place:
    if url.scheme != "file":
        return Remote(text)
    path = unquote(url.path).rstrip("/")
    if any(host for host, _ in url.hosts) or not path or "\0" in path:
        raise ConfigError("result_offload: a folder is file:///absolute/path, without a host")
    return Folder(path)
