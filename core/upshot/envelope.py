"""Between a `Record` and what a backend stores: keys, expiry, limits, identity.

Sealing checks everything that can be refused before any I/O. Opening trusts nothing: the bytes
come from a service that others can write to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, final

from upshot.backend import Capabilities, StoredRecord
from upshot.content_types import CLAIM
from upshot.errors import (
    ConfigError,
    CorruptRecordError,
    InvalidTaskIdError,
    PayloadTooLargeError,
    TamperedRecordError,
    UnsupportedError,
    UpshotError,
)
from upshot.items import index_of, item
from upshot.keys import Keyspace
from upshot.record import Payload, Record, printable
from upshot.sealing import Sealing, stripped
from upshot.url import Url

__all__ = ["AS_SET", "Envelopes", "lasting", "unfinished"]

_ALLOWED: Final = "result_max_bytes allows"
_LESS: Final = ": return less, or a reference to it"
_WAYS_OUT: Final = f"{_LESS}; or set result_compression, or result_offload"
_UNFINISHED = 30 * 86_400.0  # seconds: bounded, so that what was lost for good goes in the end

_LONG_RUN: Final = 86_400.0
"""Seconds that a task streams for at most, where no limit says: a day, longer than a job of the
night, and short enough that what nobody forgets does not fill the service."""

_LEAST: Final = 2**16
"""Bytes that every backend takes, and so every failure has: one that says that a value was too
long must have room, however little a reader allows."""

AS_SET: Final = float("nan")
"""Given as `expires`: as the client is set, not as this call says. This object alone means it: any
number that says so would be one that a caller can miscalculate."""


def unfinished(expires: float | None) -> float | None:
    """Return how long to keep a record that is not the outcome yet, or a revocation.

    `expires` counts from the end of a task. Until then its record must outlast the longest wait
    and run that anybody would want, and a revocation the message that it forbids to run.
    """
    return None if expires is None else max(expires, _UNFINISHED)


def lasting(expires: float | None, time_limit: float | None) -> float | None:
    """Return how long to keep an item that is yielded now.

    The record of its task is kept for `expires` from the task's end. The first item is to outlast
    it, and nothing can prolong it later: so the longest run comes on top.
    """
    return None if expires is None else expires + (time_limit or _LONG_RUN)


@final
class Envelopes:
    """Seals and opens the records of one namespace on one backend.

    Args:
        keys: the namespace's keys.
        url: the backend, for messages.
        expires: seconds that a record is kept if the call does not say; None for ever.
        max_bytes: the longest body that is opened; nor is one written, beyond 64 KiB, that nobody
            could read.
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
        as_is: bool = False,
    ) -> StoredRecord:
        """Return `record` in the form that a backend with these capabilities stores.

        `as_is` compresses nothing and puts nothing elsewhere: what is read back is `record`.

        Raises:
            InvalidTaskIdError: the id may not name a task.
            ConfigError: `expires` is not more than 0, or infinite.
            UnsupportedError: the backend cannot expire records, and `expires` is not None.
            PayloadTooLargeError: the backend does not take a record of this length, or
                `max_bytes` allows nobody to read it.
            ServiceError: the place for large results cannot be written to.
        """
        key = self._keys.key(record.task_id)
        return self._sealed(key, record, capabilities, expires, reply_to, as_is=as_is)

    def seal_item(
        self,
        task_id: str,
        index: int,
        payload: Payload,
        capabilities: Capabilities,
        *,
        name: str = "",
        expires: float | None = AS_SET,
    ) -> StoredRecord:
        """Return one item of a task in the form that a backend stores; otherwise like `seal`.

        Args:
            task_id, index, payload, name: see `upshot.items.item`.
            capabilities, expires: as for `seal`.
        """
        (key,) = self._keys.items(task_id, (index,))
        record = item(task_id, index, payload, name=name)
        return self._sealed(key, record, capabilities, expires, "")

    def _sealed(
        self,
        key: str,
        record: Record,
        capabilities: Capabilities,
        expires: float | None,
        reply_to: str,
        *,
        as_is: bool = False,
    ) -> StoredRecord:
        seconds = self._expires if expires is AS_SET else expires
        if seconds is not None and not 0 < seconds < math.inf:  # NaN is neither
            raise ConfigError(f"expires is more than 0 seconds, or None for ever; not {seconds!r}")
        if seconds is not None and capabilities.expiry_resolution is None:
            raise UnsupportedError(f"{self._url} cannot expire records: set result_expires to None")
        readable = max(self._max_bytes, _LEAST)
        self._check_readable(record, readable)
        most, sealing = min(capabilities.max_record_bytes, readable), self._sealing
        if sealing is None:
            body = record.encode()
        elif as_is:
            body = self.written(record)
        else:
            body = sealing.seal_record(record, most=most, expires=seconds)
        if len(body) > most:
            who = "the backend takes" if most == capabilities.max_record_bytes else _ALLOWED
            raise self._too_large(record.task_id, len(body), most, who, _WAYS_OUT)
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

    def _check_readable(self, record: Record, most: int) -> None:
        """Refuse a payload that readers would refuse, whatever is done to it on the way.

        Raises:
            PayloadTooLargeError: it is longer than they unfold, or fetch from elsewhere.
        """
        for payload in (record.info, record.outcome):
            if payload is not None and len(payload[1]) > most:
                raise self._too_large(record.task_id, len(payload[1]), most, _ALLOWED, _LESS)

    def written(self, record: Record) -> bytes:
        """Return the bytes of a record whose payloads stay in it as they are."""
        sealing = self._sealing
        if sealing is None:
            return record.encode()
        whole = replace(sealing, compression=None, offload=None)
        return whole.seal_record(record, most=self._max_bytes, expires=None)

    def read(self, body: bytes) -> Record:
        """Read back what `written` returned; who has no key reads what is signed, unverified.

        Raises:
            CorruptRecordError: it is no record, or not sealed as it must be.
        """
        if self._sealing is not None:
            return self._sealing.open_record(body)
        return Record.decode(stripped(body) or body)

    def open(self, key: str, body: object) -> Record | UpshotError:
        """Return the record stored under `key`, or the error that takes its place."""
        if not isinstance(body, bytes):  # a service may hold anything that somebody put there
            return self._corrupt(key, f"it is of type {type(body).__name__}")
        if len(body) > self._max_bytes:
            return self._too_large(self._keys.label(key), len(body), self._max_bytes, _ALLOWED)
        sealing, kind = self._sealing, CorruptRecordError
        try:
            record = Record.decode(body) if sealing is None else sealing.open_record(body)
            if self._is_at_home(key, record):
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

    def _is_at_home(self, key: str, record: Record) -> bool:
        """Tell whether a record is what its key is for, such as the third item of a task."""
        if record.outcome is not None and record.outcome[0].startswith(CLAIM):
            return False  # of a key, whose text stands where others have the id of their task
        index = None if record.info is None else index_of(record)
        if index is None:
            return self._keys.is_of(key, record.task_id)
        return self._keys.items(record.task_id, (index,)) == [key]

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
