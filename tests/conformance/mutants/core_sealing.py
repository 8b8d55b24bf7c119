"""Broken cores: what is signed, encrypted, compressed and put elsewhere; `core` has the others."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from upshot import compression, keyring, sealing
from upshot.envelope import Envelopes
from upshot.errors import CorruptRecordError, TamperedRecordError, UpshotError
from upshot.keyring import Keyring, RefusedError
from upshot.offload import Offload
from upshot.record import Payload, Record
from upshot.sealing import Sealing

from .breaking import put

# -- signatures ----------------------------------------------------------------------------------


def _compare_nothing() -> None:
    def same(*_: bytes) -> bool:
        return True

    put(hmac, "compare_digest", same)


def _compare_a_little() -> None:
    original = hmac.compare_digest

    def same(one: bytes, other: bytes) -> bool:
        return original(one[:0], other[:0])

    put(hmac, "compare_digest", same)


def _edit_what_is_signed(edit: Callable[[bytes], bytes]) -> None:
    original = vars(keyring)["_mac"]

    def mac(key: bytes, context: Sequence[bytes], head: bytes, data: bytes) -> bytes:
        found: bytes = original(key, context, head, edit(data))
        return found

    put(keyring, "_mac", mac)


def _accept_unsigned() -> None:
    original = vars(Sealing)["_verified"]

    def verified(self: Sealing, body: bytes, where: tuple[bytes, ...]) -> bytes:
        try:
            found: bytes = original(self, body, where)
        except RefusedError:
            if keyring.is_signed(body):
                raise
            return body
        return found

    put(Sealing, "_verified", verified)


def _accept_unknown_keys() -> None:
    original = Keyring.verify

    def verify(self: Keyring, data: bytes, context: Sequence[bytes]) -> bytes:
        try:
            return original(self, data, context)
        except RefusedError as exc:
            if "does not have" in str(exc):
                return keyring.unsigned(data)
            raise

    put(Keyring, "verify", verify)


def _try_one_key() -> None:
    original = Keyring.__init__

    def made(self: Keyring, signing: Sequence[str] = (), encryption: Sequence[str] = ()) -> None:
        original(self, signing[:1], encryption)

    put(Keyring, "__init__", made)


def _edit_contexts(edit: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
    original = vars(Sealing)["_where"]

    def where(self: Sealing, *context: bytes | str) -> tuple[bytes, ...]:
        return edit(original(self, *context))

    put(Sealing, "_where", where)


def _call_it_corrupt() -> None:
    original = Envelopes.open

    def opened(self: Envelopes, key: str, body: object) -> Record | UpshotError:
        found = original(self, key, body)
        if isinstance(found, TamperedRecordError):
            return CorruptRecordError(str(found), task_id=found.task_id)
        return found

    put(Envelopes, "open", opened)


# -- encryption ------------------------------------------------------------------------------------


def _leave_in_clear(part: str) -> None:
    original = vars(Sealing)["_encrypted"]

    def encrypted(self: Sealing, payload: Payload, *context: bytes) -> Payload:
        found: Payload = original(self, payload, *context)
        return payload if context[3] == part.encode() else found

    put(Sealing, "_encrypted", encrypted)


def _accept_clear() -> None:
    original = vars(Sealing)["_decrypted"]

    def decrypted(self: Sealing, payload: Payload, what: str, *context: bytes) -> Payload:
        if ";enc=" not in payload.content_type:
            return payload
        found: Payload = original(self, payload, what, *context)
        return found

    put(Sealing, "_decrypted", decrypted)


def _bind_to_less(keep: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
    original = vars(Sealing)["_of"]

    def of(self: Sealing, record: Record, part: bytes) -> tuple[bytes, ...]:
        return keep(original(self, record, part))

    put(Sealing, "_of", of)


def _give_out_what_is_encrypted() -> None:
    def none(content_type: str) -> tuple[str, str]:
        return content_type.partition(";enc=")[0], ""

    from upshot.serializers import base

    put(base, "encryption_of", none)


# -- compression, and what is kept elsewhere -----------------------------------------------------


def _unfold_everything() -> None:
    original = compression.decompress

    def decompress(name: str, data: bytes, *, at_most: int) -> bytes:
        return original(name, data, at_most=2**31)

    put(compression, "decompress", decompress)


def _look_after_unfolding() -> None:
    original = compression.decompress

    def decompress(name: str, data: bytes, *, at_most: int) -> bytes:
        original(name, data, at_most=2**31)
        return original(name, data, at_most=at_most)

    put(compression, "decompress", decompress)


def _compress_without_a_word() -> None:
    def same(content_type: str, name: str) -> str:
        return content_type

    put(sealing, "compressed_as", same)


def _forget_records_alone() -> None:
    def forget(self: Envelopes, task_ids: Iterable[str]) -> None:
        """Do nothing."""

    put(Envelopes, "forget", forget)


def _take_any_file() -> None:
    def check(self: Offload, task_id: str, outcome: Payload) -> None:
        """Do nothing."""

    put(Offload, "check", check)


def _put_nothing_elsewhere() -> None:
    def unchanged(
        self: Offload, task_id: str, outcome: Payload, room: int, expires: float | None
    ) -> Payload:
        return outcome

    put(Offload, "put", unchanged)


def _take_changed_files() -> None:
    import hashlib

    from upshot.offload import base

    class _Blind:
        """Finds the digest that is asked for."""

        def __init__(self, data: bytes) -> None:
            self._data = data

        def hexdigest(self) -> str:
            return hashlib.sha256(str(len(self._data)).encode()).hexdigest()

    class _Hashes:
        sha256: Any = _Blind

    put(base, "hashlib", _Hashes)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "signatures are not compared": ("SE-4", _compare_nothing),
    "signatures are compared in no byte": ("SE-4", _compare_a_little),
    "the end of a record is not signed": ("SE-4", lambda: _edit_what_is_signed(lambda d: d[:-1])),
    "only the head of a record is signed": ("SE-4", lambda: _edit_what_is_signed(lambda d: d[:40])),
    "what is not signed is accepted": ("SE-4", _accept_unsigned),
    "unknown keys are accepted": ("SE-4", _accept_unknown_keys),
    "older keys verify nothing": ("SE-4", _try_one_key),
    "seals hold in any namespace": ("SE-4", lambda: _edit_contexts(lambda where: where[:1])),
    "tampering is called damage": ("SE-4", _call_it_corrupt),
    "outcomes are left in clear": ("SE-5", lambda: _leave_in_clear("outcome")),
    "progress is left in clear": ("SE-5", lambda: _leave_in_clear("info")),
    "what is not encrypted is accepted": ("SE-5", _accept_clear),
    "encryption holds for any id": ("SE-5", lambda: _bind_to_less(lambda w: (*w[:2], *w[3:]))),
    "encryption holds for any payload": ("SE-5", lambda: _bind_to_less(lambda w: w[:3])),
    "encryption holds for any state": ("SE-5", lambda: _bind_to_less(lambda w: w[:4])),
    "encryption holds for any index": ("SE-5", lambda: _bind_to_less(lambda w: w[:6])),
    "what is encrypted is given out": ("SE-5", _give_out_what_is_encrypted),
    "what is compressed unfolds without end": ("SE-6", _unfold_everything),
    "the limit is looked at after unfolding": ("SE-6", _look_after_unfolding),
    "what is compressed does not say so": ("SE-6", _compress_without_a_word),
    "files outlive their records": ("RS-8", _forget_records_alone),
    "records may lead to any file": ("RS-8", _take_any_file),
    "nothing is put elsewhere": ("RS-8", _put_nothing_elsewhere),
    "files may be changed": ("RS-8", _take_changed_files),
}
"""As `core.MUTANTS`."""
