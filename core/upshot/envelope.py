"""Between a `Record` and what a backend stores: keys, expiry, limits, identity.

Sealing checks everything that can be refused before any I/O. Opening trusts nothing: the bytes
come from a service that others can write to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, final

from upshot.backend import Capabilities, StoredRecord
from upshot.errors import (
    ConfigError,
    CorruptRecordError,
    InvalidTaskIdError,
    PayloadTooLargeError,
    TamperedRecordError,
    UnsupportedError,
    UpshotError,
)
from upshot.keys import Keyspace
from upshot.record import Record, printable
from upshot.sealing import Sealing, stripped
from upshot.url import Url

__all__ = ["AS_SET", "Envelopes", "unfinished"]

_WAYS_OUT: Final = (
    ": return less, or a reference to it; or set result_compression, or result_offload"
)
_UNFINISHED = 30 * 86_400.0  # seconds: bounded, so that what was lost for good goes in the end

AS_SET: Final = float("nan")
"""Given as `expires`: as the client is set, not as this call says. This object alone means it: any
number that says so would be one that a caller can miscalculate."""


def unfinished(expires: float | None) -> float | None:
    """Return how long to keep a record that is not the outcome yet, or a revocation.

    `expires` counts from the end of a task. Until then its record must outlast the longest wait
    and run that anybody would want, and a revocation the message that it forbids to run.
    """
    return None if expires is None else max(expires, _UNFINISHED)


@final
class Envelopes:
    """Seals and opens the records of one namespace on one backend.

    Args:
        keys: the namespace's keys.
        url: the backend, for messages.
        expires: seconds that a record is kept if the call does not say; None for ever.
        max_bytes: the longest body that is opened.
        sealing: compresses, signs, encrypts and puts elsewhere; None does nothing of it.
    """

    def __init__(
        self,
        keys: Keyspace,
        *,
        url: Url,
        expires: float | None,
        max_bytes: int,
        sealing: Sealing | None = None,
    ) -> None:
        self._keys = keys
        self._url = url
        self._expires = expires
        self._max_bytes = max_bytes
        self._sealing = sealing

    def seal(
        self,
        record: Record,
        capabilities: Capabilities,
        *,
        expires: float | None = AS_SET,
        reply_to: str = "",
    ) -> StoredRecord:
        """Return `record` in the form that a backend with these capabilities stores.

        Raises:
            InvalidTaskIdError: the id may not name a task.
            ConfigError: `expires` is not more than 0, or infinite.
            UnsupportedError: the backend cannot expire records, and `expires` is not None.
            PayloadTooLargeError: the backend does not take a record of this length.
            ServiceError: the place for large results cannot be written to.
        """
        key = self._keys.key(record.task_id)
        seconds = self._expires if expires is AS_SET else expires
        if seconds is not None and not 0 < seconds < math.inf:  # NaN is neither
            raise ConfigError(f"expires is more than 0 seconds, or None for ever; not {seconds!r}")
        if seconds is not None and capabilities.expiry_resolution is None:
            raise UnsupportedError(f"{self._url} cannot expire records: set result_expires to None")
        most, sealing = capabilities.max_record_bytes, self._sealing
        if sealing is None:
            body = record.encode()
        else:
            body = sealing.seal_record(record, most=most, expires=seconds)
        if len(body) > most:
            raise self._too_large(record.task_id, len(body), most, "the backend takes", _WAYS_OUT)
        return StoredRecord(
            key=key,
            body=body,
            rank=record.rank,
            barrier=record.barrier,
            expires=seconds,
            task_id=record.task_id,
            state=record.state,
            name=record.name,
            reply_to=reply_to,
        )

    def open(self, key: str, body: object) -> Record | UpshotError:
        """Return the record stored under `key`, or the error that takes its place."""
        if not isinstance(body, bytes):  # a service may hold anything that somebody put there
            return self._corrupt(key, f"it is of type {type(body).__name__}")
        if len(body) > self._max_bytes:
            return self._too_large(
                self._keys.label(key), len(body), self._max_bytes, "result_max_bytes allows"
            )
        sealing, kind = self._sealing, CorruptRecordError
        try:
            record = Record.decode(body) if sealing is None else sealing.open_record(body)
            if self._keys.is_of(key, record.task_id):
                return record
            if sealing is not None and sealing.keyring.signs:
                kind = TamperedRecordError
            reason = "it belongs to another id"
        except (CorruptRecordError, InvalidTaskIdError) as exc:
            signed = stripped(body) if sealing is None else None
            if signed is not None:  # whoever has no key takes it as one that is not signed
                return self.open(key, signed)
            kind = TamperedRecordError if isinstance(exc, TamperedRecordError) else kind
            reason = str(exc)
        return self._corrupt(key, reason, kind)

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove what lies outside of the records of these tasks; see `Sealing.forget`."""
        if self._sealing is not None:
            self._sealing.forget(task_ids)

    def prune(self) -> int:
        """Remove what has expired of that, and return how much; see `Sealing.prune`."""
        return 0 if self._sealing is None else self._sealing.prune()

    def _corrupt(
        self, key: str, reason: str, kind: type[CorruptRecordError] = CorruptRecordError
    ) -> CorruptRecordError:
        task_id = self._keys.label(key)
        return kind(
            f"what {self._url} holds for task {printable(task_id)!r} cannot be read: {reason}; "
            "forget() removes it",
            task_id=task_id,
        )

    def _too_large(
        self, task_id: str, size: int, limit: int, who: str, hint: str = ""
    ) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"the record of task {printable(task_id)!r} on {self._url} has {size} bytes; "
            f"{who} at most {limit}{hint}",
            size=size,
            limit=limit,
        )
