"""Broken backends: what stored data can do to whom reads it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import json
import logging
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from upshot.backend import StoredRecord
from upshot.errors import CorruptRecordError, ServiceRejectedError
from upshot.record import Record

from .kinds import Mutant

logger = logging.getLogger(__name__)

_TEXTS_LENGTH: Final = 11  # where it stands in a record
_INFO_LENGTH: Final = 15


class LooksAtBodies(Mutant):
    """Does something with each body that it has loaded."""

    def look(self, body: bytes) -> bytes:
        """Return what is handed out in place of a body."""
        return body

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body and self.look(body) for body in self.bodies(keys, timeout)]


def _record(body: bytes) -> Record | None:
    try:
        return Record.decode(body)
    except CorruptRecordError:
        return None


class UnpicklesOldRecords(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        if body.startswith(b"\x80"):
            with contextlib.suppress(Exception):
                pickle.loads(body)
        return body


class UnpicklesOutcomes(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        record = _record(body)
        if record and record.outcome and record.outcome.content_type == "pickle":
            with contextlib.suppress(Exception):
                pickle.loads(record.outcome.body)
        return body


class ImportsTheTasksModule(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        record = _record(body)
        if record and record.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(record.name.partition(":")[0])
        return body


class ImportsTheExceptionsModule(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        record = _record(body)
        if record and record.state == "FAILURE" and record.outcome:
            with contextlib.suppress(ImportError, ValueError, TypeError, KeyError):
                data: Any = json.loads(record.outcome.body)
                importlib.import_module(data["exceptions"][0]["module"])
        return body


class EvaluatesTexts(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        record = _record(body)
        if record and record.outcome and record.outcome.body.startswith(b'"'):
            with contextlib.suppress(Exception):
                eval(json.loads(record.outcome.body), {"__builtins__": {}})
        return body


class KeepsACopyOnDisk(LooksAtBodies):
    kills = "SE-1"

    def look(self, body: bytes) -> bytes:
        with open("/dev/null", "wb") as copy:
            copy.write(body)
        return body


class _Unpacks(LooksAtBodies):
    magic = b""
    unpack: Callable[[bytes], bytes]

    def look(self, body: bytes) -> bytes:
        if body.startswith(self.magic):
            with contextlib.suppress(Exception):
                return type(self).unpack(body)
        return body


class UnpacksZlib(_Unpacks):
    kills = "SE-2"
    magic = b"x"
    unpack = staticmethod(zlib.decompress)


class UnpacksGzip(_Unpacks):
    kills = "SE-2"
    magic = b"\x1f\x8b"
    unpack = staticmethod(gzip.decompress)


class TriesEveryPacking(LooksAtBodies):
    kills = "SE-2"

    def look(self, body: bytes) -> bytes:
        for unpack in (bz2.decompress, zlib.decompress, gzip.decompress):
            with contextlib.suppress(Exception):
                return unpack(body)
        return body


class BelievesTheTextsLength(LooksAtBodies):
    kills = "SE-2"

    def look(self, body: bytes) -> bytes:
        if body.startswith(b"u2"):
            (length,) = struct.unpack_from("<I", body, _TEXTS_LENGTH)
            room = bytearray(length)
            room[: len(body)] = body[:length]
        return body


class BelievesTheInfosLength(LooksAtBodies):
    kills = "SE-2"

    def look(self, body: bytes) -> bytes:
        if body.startswith(b"u2"):
            (length,) = struct.unpack_from("<I", body, _INFO_LENGTH)
            with contextlib.suppress(MemoryError):
                bytearray(length)
        return body


class CutsWhatIsLong(LooksAtBodies):
    kills = "SE-2"

    def look(self, body: bytes) -> bytes:
        return body[:65536]


class DropsWhatIsLong(LooksAtBodies):
    kills = "SE-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        found = self.bodies(keys, timeout)
        return [body if body and len(body) < 65536 else None for body in found]


class ReprShowsTheUrl(Mutant):
    kills = "SE-3"
    login_only = "a file has no password"

    def __repr__(self) -> str:
        return f"<results at {self.url.driver_url()}>"


class LogsTheUrl(Mutant):
    kills = "SE-3"
    login_only = "a file has no password"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        logger.debug("reading %d keys from %s", len(keys), self.url.driver_url())
        return super().load(keys, timeout)


class WarnsOfThePassword(Mutant):
    kills = "SE-3"
    login_only = "a file has no password"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if self.url.password:
            warnings.warn(f"the password {self.url.password!r} is sent as it is", stacklevel=2)
        return super().store(records, timeout)


class SaysWhereItCannotStore(Mutant):
    kills = "SE-3"
    login_only = "a file has no password"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        if self.url.username == "somebody":
            raise ServiceRejectedError(f"somebody may not write to {self.url.driver_url()}")
        return super().store(records, timeout)
