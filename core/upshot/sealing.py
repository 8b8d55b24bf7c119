"""What is done to records and messages on their way out, and undone on their way in.

On the way out: payloads are compressed, put elsewhere if they are too large, encrypted; then the
whole is signed. Nothing of it is done unless a setting asks for it. Compression and references say
so themselves, so readers need no setting for the first, and only the place for the second.

What a signature holds for: every byte of a record, in its namespace; the id is in the record, and
`Envelopes` compares it to the key. Of a message, every byte, in its namespace and queue.

What an encrypted payload holds for: namespace, id, content type and which payload it is; with an
outcome also the state and the attempt, with an item of a stream also its index, which is not
encrypted itself, and with arguments also the queue and the task's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from upshot.content_types import (
    compressed_as,
    compression_of,
    encrypted_as,
    encryption_of,
    offloaded_of,
)
from upshot.errors import TamperedMessageError, TamperedRecordError
from upshot.items import index_of
from upshot.keyring import Keyring, RefusedError, is_signed, unsigned
from upshot.message import Message
from upshot.record import Payload, Record

if TYPE_CHECKING:
    from upshot.offload import Offload

__all__ = ["Sealing", "open_message", "seal_message", "stripped"]

_RECORD: Final = b"upshot record"
_MESSAGE: Final = b"upshot message"


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sealing:
    """How one app seals the records and messages of its namespace. Any thread may use it.

    Attributes:
        namespace: as everywhere.
        keyring: what signs and encrypts.
        accept_unsealed: whether to take what is neither, although there are keys.
        compression: "gzip" or "zstd"; None compresses nothing.
        threshold: bytes of a payload, from which on it is compressed.
        offload: where large outcomes are put; None puts them nowhere.
    """

    namespace: str
    keyring: Keyring
    accept_unsealed: bool = False
    compression: str | None = None
    threshold: int = 0
    offload: Offload | None = None

    # -- records ----------------------------------------------------------------------------------

    def seal_record(self, record: Record, *, most: int, expires: float | None) -> bytes:
        """Return a record in the bytes that are stored.

        Args:
            record: as the task has it.
            most: bytes that the backend takes.
            expires: seconds that it will be kept; None for ever.

        Raises:
            ValueError: as `Record.encode` says.
            ServiceError: the place for large outcomes cannot be written to.
        """
        info, outcome = record.info, record.outcome
        if info is not None and index_of(record) is None:
            info = self._encrypted(self._compressed(info), *self._of(record, b"info"))
        if outcome is not None:
            outcome = self._compressed(outcome)
            if self.offload is not None:
                rest = 0 if info is None else len(info.body)
                outcome = self.offload.put(record.task_id, outcome, most - rest, expires)
            outcome = self._encrypted(outcome, *self._of(record, b"outcome"))
        body = record._replace(info=info, outcome=outcome).encode()
        return self.keyring.sign(body, self._where(_RECORD)) if self.keyring.signs else body

    def open_record(self, body: bytes) -> Record:
        """Read back what `seal_record` returned.

        A payload that is encrypted with a key that is not here stays as it is.

        Raises:
            TamperedRecordError: it is not signed or not encrypted as it must be.
            CorruptRecordError: it is no record.
        """
        try:
            record = Record.decode(self._verified(body, self._where(_RECORD)))
            info, outcome = record.info, record.outcome
            if info is not None and index_of(record) is None:
                info = self._decrypted(info, "info", *self._of(record, b"info"))
            if outcome is not None:
                outcome = self._decrypted(outcome, "outcome", *self._of(record, b"outcome"))
                if self.offload is not None:
                    self.offload.check(record.task_id, outcome)
        except RefusedError as exc:
            raise TamperedRecordError(str(exc)) from exc
        if info is not record.info or outcome is not record.outcome:
            return record._replace(info=info, outcome=outcome)
        return record

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove what was put elsewhere for these tasks.

        Raises:
            ServiceError: the place cannot be written to.
        """
        if self.offload is not None:
            self.offload.forget(task_ids)

    def prune(self) -> int:
        """Remove what has expired of what was put elsewhere; return how many files that were.

        Raises:
            ServiceError: the place cannot be read or written to.
        """
        return 0 if self.offload is None else self.offload.prune()

    def _of(self, record: Record, part: bytes) -> tuple[bytes, ...]:
        where = (*self._where(_RECORD), record.task_id.encode(), part)
        if part == b"info":  # outlives changes of the state, also by who cannot read it
            return where
        where = (*where, record.state.encode(), str(record.attempt).encode())
        index = index_of(record)
        return where if index is None else (*where, b"item", str(index).encode())

    # -- messages ---------------------------------------------------------------------------------

    def seal_message(self, message: Message) -> bytes:
        """Return a message in the bytes that are published."""
        if self.keyring.encrypts:
            arguments = self._encrypted(message.arguments, *self._to(message))
            message = message._replace(arguments=arguments)
        body = message.encode()
        where = self._where(_MESSAGE, message.queue)
        return self.keyring.sign(body, where) if self.keyring.signs else body

    def open_message(self, body: bytes, queue: str) -> Message:
        """Read back what `seal_message` returned.

        Arguments that are encrypted with a key that is not here stay as they are.

        Args:
            body: what the broker holds.
            queue: where it came from.

        Raises:
            TamperedMessageError: it is not signed or not encrypted as it must be.
            DecodeError: it is no message.
        """
        try:
            message = Message.decode(self._verified(body, self._where(_MESSAGE, queue)))
            arguments = self._decrypted(message.arguments, "arguments", *self._to(message))
        except RefusedError as exc:
            raise TamperedMessageError(f"the message is refused: {exc}") from exc
        return message._replace(arguments=arguments)

    def has_sealed(self, body: bytes, queue: str) -> bool:
        """Tell whether a message is signed as it must be, whatever is in it."""
        try:
            self._verified(body, self._where(_MESSAGE, queue))
        except RefusedError:
            return False
        return True

    def _to(self, message: Message) -> tuple[bytes, ...]:
        where = self._where(_MESSAGE, message.queue)
        return (*where, message.task_id.encode(), message.name.encode())

    # -- both -------------------------------------------------------------------------------------

    def _where(self, *context: bytes | str) -> tuple[bytes, ...]:
        kind, *rest = (_bytes(each) for each in context)
        return (kind, _bytes(self.namespace), *rest)

    def _verified(self, body: bytes, where: tuple[bytes, ...]) -> bytes:
        if is_signed(body):
            return self.keyring.verify(body, where) if self.keyring.signs else unsigned(body)
        if self.keyring.signs and not self.accept_unsealed:
            raise RefusedError("it is not signed, and signing_keys is set")
        return body

    def _compressed(self, payload: Payload) -> Payload:
        content_type, body = payload
        if self.compression is None or len(body) < self.threshold or _is_wrapped(content_type):
            return payload
        from upshot.compression import compress  # only where it is switched on

        packed = compress(self.compression, body)
        if packed is None:
            return payload
        return Payload(compressed_as(content_type, self.compression), packed)

    def _encrypted(self, payload: Payload, *context: bytes) -> Payload:
        content_type, body = payload
        if not self.keyring.encrypts or encryption_of(content_type)[1]:
            return payload  # the latter is what we could not read, and somebody else can
        key_id, encrypted = self.keyring.encrypt(body, (*context, content_type.encode()))
        return Payload(encrypted_as(content_type, key_id), encrypted)

    def _decrypted(self, payload: Payload, what: str, *context: bytes) -> Payload:
        content_type, body = payload
        inside, key_id = encryption_of(content_type)
        if not self.keyring.encrypts or (key_id and not self.keyring.knows(key_id)):
            return payload
        if key_id:
            where = (*context, inside.encode())
            return Payload(inside, self.keyring.decrypt(key_id, body, where))
        if self.accept_unsealed:
            return payload
        raise RefusedError(f"its {what} is not encrypted, and encryption_keys is set")


def seal_message(message: Message, sealing: Sealing | None) -> bytes:
    """Return a message in the bytes that are published; None seals nothing."""
    return message.encode() if sealing is None else sealing.seal_message(message)


def open_message(body: bytes, queue: str, sealing: Sealing | None) -> Message:
    """Read back a message; who has no key takes a signed one as one that is not.

    Raises:
        DecodeError: it is no message, or one that `Sealing.open_message` refuses.
    """
    if sealing is not None:
        return sealing.open_message(body, queue)
    return Message.decode(stripped(body) or body)


def stripped(body: bytes) -> bytes | None:
    """Return what was signed, unverified; None if `body` is not signed, or more than once."""
    if not is_signed(body):
        return None
    try:
        inside = unsigned(body)
    except RefusedError:
        return None
    return None if is_signed(inside) else inside


def _is_wrapped(content_type: str) -> bool:
    return bool(
        compression_of(content_type)[1]
        or encryption_of(content_type)[1]
        or offloaded_of(content_type)
    )


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
