"""Broken backends: values that change on the way."""

from __future__ import annotations

from collections.abc import Sequence

from upshot.backend import StoredRecord
from upshot.record import Payload, Record

from .kinds import (
    ChangesRecords,
    Mutant,
)


class BytesDecodedToText(Mutant):
    kills = "RS-5"

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        lossy = [r._replace(body=r.body.decode("utf-8", "replace").encode()) for r in records]
        # The header's own binary fields survive, as they would in a column of their own.
        kept = [new._replace(body=old.body[:10] + new.body[-len(old.body) + 10 :])
                for old, new in zip(records, lossy, strict=True)]  # fmt: skip
        return super().store(kept, timeout)


class CutsAt64KiB(ChangesRecords):
    kills = "RS-6"

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(body=record.body[:65536])


class _ChangesBodies(ChangesRecords):
    def body(self, body: bytes) -> bytes:
        return body

    def changed(self, record: StoredRecord) -> StoredRecord:
        return record._replace(body=self.body(record.body))


class CutsTrailingZeros(_ChangesBodies):
    kills = "RS-5"

    def body(self, body: bytes) -> bytes:
        return body.rstrip(b"\0")


class CutsTrailingSpace(_ChangesBodies):
    kills = "RS-5"

    def body(self, body: bytes) -> bytes:
        return body.rstrip(b" \t\r\n")


class TranslatesNewlines(_ChangesBodies):
    kills = "RS-5"

    def body(self, body: bytes) -> bytes:
        return body[:10] + body[10:].replace(b"\r\n", b"\n")


class LongResultsBecomeNone(_ChangesBodies):
    kills = "RS-6"

    def body(self, body: bytes) -> bytes:
        record = Record.decode(body)
        if record.outcome is None or len(record.outcome.body) < 2**20:
            return body
        return record._replace(outcome=Payload("json", b"null")).encode()


class FalsyIsMissing(Mutant):
    kills = "RS-2"

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        return [body if body and _holds(body) else None for body in self.bodies(keys, timeout)]


def _holds(body: bytes) -> bool:
    outcome = Record.decode(body).outcome
    return outcome is None or outcome.body not in (b"null", b"false", b"0", b'""', b"[]", b"{}")
