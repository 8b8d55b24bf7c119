"""Every decoder, as a function that takes bytes and raises only where the decoder has a flaw.

A decoder may return something or raise the errors that its documentation declares. Anything else
leaves `feed` as it is. What is allocated and how long it takes is for the caller to watch.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from tests.faults.hostility import flaws_of, sealed
from upshot import clock
from upshot.archive import from_line, to_line
from upshot.cli.printing import as_text
from upshot.compression import compress, decompress
from upshot.config import Configuration
from upshot.content_types import COMPRESSIONS
from upshot.envelope import Envelopes
from upshot.errors import (
    ConfigError,
    CorruptRecordError,
    DecodeError,
    InvalidTaskIdError,
    PayloadMissingError,
    PayloadTooLargeError,
    SerializationError,
    TamperedMessageError,
    UpshotError,
    UrlError,
)
from upshot.failure import Failure, describe, rebuild
from upshot.keyring import Keyring, check_keys
from upshot.keys import Keyspace
from upshot.masking import mask
from upshot.message import Message
from upshot.offload import Offload
from upshot.record import Payload, Record, check_task_id, printable
from upshot.sealing import Sealing, open_message
from upshot.serializers import Codecs, JsonSerializer, MsgpackSerializer
from upshot.settings import SETTINGS
from upshot.states import State
from upshot.url import Url
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.options import AmqpOptions
from upshot_backends.amqp.queues import Letter
from upshot_backends.amqp.replies import unpack
from upshot_backends.memcached import layout
from upshot_backends.memcached.driver import MemcacheError
from upshot_backends.memcached.wire import Wire
from upshot_conformance.suite.forge import forged

__all__ = ["MAX_BYTES", "TARGETS", "Target"]

MAX_BYTES: Final = 65_536
"""The longest input; nothing that reads one may allocate 64 MiB."""

JSON, MSGPACK = JsonSerializer(), MsgpackSerializer()
_SECRET: Final = "Zq7Kx9WvmJ4Tr8Bn"
_URL: Final = Url.parse("memory://fuzz")
_ENVELOPES: Final = Envelopes(
    Keyspace("fuzz", max_bytes=250, text=False), url=_URL, expires=None, max_bytes=MAX_BYTES
)
_KEYS: Final = ("fuzz:" + "0a" * 32,)
_SEALING: Final = Sealing(namespace="fuzz", keyring=Keyring(_KEYS, _KEYS))
_CLOSED: Final = Envelopes(
    Keyspace("fuzz", max_bytes=250, text=False),
    url=_URL,
    expires=None,
    max_bytes=MAX_BYTES,
    sealing=_SEALING,
)
_OFFLOAD: Final = Offload("file:///nowhere/at/all", namespace="fuzz", keyring=Keyring())
_CODECS: Final = Codecs({"json": JSON}, max_bytes=MAX_BYTES, fetch=_OFFLOAD.fetch)


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder.

    Attributes:
        feed: reads an input; raises if the decoder has a flaw.
        seeds: inputs that it understands, to start from.
    """

    feed: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _is_plain(shown: str) -> None:
    assert not [*flaws_of(shown)], shown


def _is_short(shown: str, text: str) -> None:
    """Check that an error does not quote more than there was, escapes counted."""
    assert len(shown) < 12 * len(text) + 2000


def _record(data: bytes) -> None:
    with contextlib.suppress(CorruptRecordError):
        _use(Record.decode(data))


def _record_inside(data: bytes) -> None:
    """Read numbers, texts and payloads under a right checksum."""
    with contextlib.suppress(CorruptRecordError):
        _use(Record.decode(forged(data)))


def _use(record: Record) -> None:
    """Do with a record what readers do; it can be written, shown and dated."""
    record.encode()
    for moment in (record.queued_at, record.started_at, record.finished_at):
        clock.to_datetime(moment)
    assert not record.is_terminal or record.state == State.REVOKED or record.outcome is not None


def _record_line(data: bytes) -> None:
    try:
        record = from_line(data)
    except DecodeError as exc:
        _is_short(str(exc), data.decode(errors="replace"))
    else:
        assert from_line(to_line(record)).encode() == record.encode()
        _use(record)


def _envelope(data: bytes) -> None:
    found = _ENVELOPES.open("fuzz:a", data)
    assert isinstance(found, (Record, UpshotError))
    assert not [*flaws_of(str(found))] or isinstance(found, Record)


def _message(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        Message.decode(data).encode()


def _message_header(data: bytes) -> None:
    """Read a header under a right checksum; what can be read can be sent again."""
    try:
        message = Message.decode(sealed(data))
    except DecodeError as exc:
        _is_plain(str(exc))
    else:
        assert Message.decode(message.encode()) == message
        assert message.name.isprintable()


def _sealed_record(data: bytes) -> None:
    """Read what stands in the place of a signed record; nobody but us has the key."""
    found = _CLOSED.open("fuzz:a", data)
    assert isinstance(found, UpshotError) or data == _GOOD_SEALED
    assert not [*flaws_of(str(found))] or isinstance(found, Record)


def _sealed_message(data: bytes) -> None:
    try:
        open_message(data, "q", _SEALING)
    except TamperedMessageError as exc:
        _is_plain(str(exc))
    else:
        assert data == _SENT_SEALED
    with contextlib.suppress(DecodeError):
        open_message(data, "q", None)


def _compressed(data: bytes) -> None:
    for name in COMPRESSIONS:
        with contextlib.suppress(DecodeError, PayloadTooLargeError):
            assert len(decompress(name, data, at_most=MAX_BYTES)) <= MAX_BYTES


def _wrapped(data: bytes) -> None:
    """Read a payload whose content type says anything."""
    content_type, _, body = data.partition(b"\0")
    with contextlib.suppress(SerializationError, PayloadMissingError):
        _CODECS.decode(content_type.decode(errors="replace"), body)


def _keys(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for name in ("signing_keys", "encryption_keys"):
        try:
            check_keys(name, text.split(","))
        except ConfigError as exc:
            _is_plain(str(exc))
            _is_short(str(exc), "")


def _json(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        JSON.loads(data)


def _json_again(data: bytes) -> None:
    """Read a value, and write and show it."""
    try:
        value = JSON.loads(data)
    except DecodeError:
        return
    JSON.dumps(value)
    assert not [*flaws_of(as_text(value))]


def _msgpack(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        MSGPACK.loads(data)


def _failure(data: bytes) -> None:
    """Rebuild an exception, print it, and describe it anew."""
    try:
        exc = rebuild(Failure.from_data(JSON.loads(data)))
    except DecodeError:
        return
    traceback.format_exception(exc)
    describe(exc, encodable=JSON.can_encode)


def _url(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        url = Url.parse(text)
    except UrlError as exc:
        _is_short(str(exc), text)
        return
    assert url.password is None or len(url.password) < 8 or url.password not in str(url)
    url.scrub("redis://:x@h and some text")
    url.driver_url()
    with contextlib.suppress(UrlError):
        url.read_options(AmqpOptions)


def _mask(data: bytes) -> None:
    once = mask(data.decode(errors="replace"))
    assert mask(once) == once


def _secret(data: bytes) -> None:
    """Mask a URL with a password in it, whatever stands around."""
    text = "".join(data.decode(errors="replace").split())
    before, _, after = text.partition("?")
    shown = mask(f"{before} redis://u:{_SECRET}@h/{after}")
    assert _SECRET not in shown


def _headers(data: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _reply(data: bytes) -> None:
    received = Received(1, False, data, _headers(data), None, None)
    reply = unpack(received)
    assert reply is None or (reply.rank >= 0 and reply.barrier >= 0)


def _letter(data: bytes) -> None:
    letter = Letter.read(Received(1, True, data, _headers(data), "\x1b", None), "default")
    letter.due_in()
    letter.parcel("x")


class _Line:
    """A socket on which a server has said something, and then closed it."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def sendall(self, data: bytes) -> None:
        """Take a command."""

    def recv(self, size: int) -> bytes:
        """Return at most so many bytes, in small pieces."""
        piece, self._said = self._said[: min(size, 100)], self._said[min(size, 100) :]
        return piece

    def close(self) -> None:
        """Do nothing."""


def _memcached(data: bytes) -> None:
    line: Any = _Line(data)
    wire, found, uniques = Wire(line), dict[bytes, bytes](), dict[bytes, bytes]()
    with contextlib.suppress(MemcacheError):
        wire.read_values(found, uniques)
        wire.answers(2)


def _item(data: bytes) -> None:
    item = layout.read(data, 1e9)
    if item.parts is not None:
        assert len(item.parts.keys(b"key")) <= layout.MAX_RECORD // 2**16
        assert not any(b"\r" in key or b" " in key for key in item.parts.keys(b"key"))


def _environment(data: bytes) -> None:
    names = list(SETTINGS)
    name = names[(data[0] if data else 0) % len(names)]
    text = data[1:].decode(errors="surrogateescape")
    try:
        configuration = Configuration({}, {f"UPSHOT_{name.upper()}": text})
        configuration.explain()
    except ConfigError as exc:
        _is_short(str(exc), text)


def _task_id(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    assert printable(text).isprintable()
    with contextlib.suppress(InvalidTaskIdError):
        key = Keyspace("n", max_bytes=250, text=False).key(check_task_id(text))
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key


_GOOD: Final = Record(task_id="a", state=State.SUCCESS, outcome=Payload("json", b"1"))
_SENT: Final = Message(
    task_id="a", name="n", arguments=Payload("json", b"[[],{}]"), queue="q", headers={"h": [1]}
)
_GOOD_SEALED: Final = _SEALING.seal_record(_GOOD, most=MAX_BYTES, expires=None)
_SENT_SEALED: Final = _SEALING.seal_message(_SENT)
_PACKED: Final = tuple(compress(name, b"[1]" * 100) or b"" for name in COMPRESSIONS)
_REFERENCE: Final = b"%b/%b.0 5" % (b"0" * 64, b"0" * 64)
_VALUE: Final[Any] = {
    "a": [(1, 2.5), b"raw", {1: {"x"}}, 2**70, float("inf"), 1j], "when": clock.to_datetime(0),
}  # fmt: skip
_FAILED: Final = describe(OSError(2, "x", "y"), encodable=JSON.can_encode)
_BUSY: Final = Record(
    "a", "CUSTOM", 3, "n", "q", "w", "t", 1.5, 2.5, 3.5, Payload("json", b"{}"), Payload("x", b"1")
)
_SENT_HEADER: Final = json.dumps(
    {"c": "json", "task_id": "a", "name": "n", "queue": "q", "eta": 1.5, "headers": {"a": "\x80"},
     "retry": {"max_retries": 3, "backoff": 1.0}, "time_limit": None, "priority": 9}
).encode()  # fmt: skip

TARGETS: Final[dict[str, Target]] = {
    "record": Target(_record, (_GOOD.encode(), _BUSY.encode())),
    "record-inside": Target(_record_inside, (_GOOD.encode()[6:], _BUSY.encode()[6:])),
    "record-line": Target(_record_line, (to_line(_GOOD).encode(), to_line(_BUSY).encode())),
    "envelope": Target(_envelope, (_GOOD.encode(),)),
    "message": Target(_message, (_SENT.encode(),)),
    "message-header": Target(_message_header, (_SENT_HEADER,)),
    "sealed-record": Target(_sealed_record, (_GOOD_SEALED, _GOOD.encode())),
    "sealed-message": Target(_sealed_message, (_SENT_SEALED, _SENT.encode())),
    "compressed": Target(_compressed, _PACKED),
    "wrapped": Target(
        _wrapped,
        (b"json+gzip\0" + _PACKED[0], b"json;offloaded\0" + _REFERENCE, b"json;enc=a\0x"),
    ),
    "keys": Target(_keys, (_KEYS[0].encode(), b"a:b,c:d", b"file:/run/keys")),
    "json": Target(_json, (JSON.dumps(_VALUE), b'{"$date":"2024-01-01"}')),
    "json-again": Target(_json_again, (JSON.dumps(_VALUE), b'["\\ud800",1e5]')),
    "msgpack": Target(_msgpack, (MSGPACK.dumps(_VALUE), b"\xdd\xff\xff\xff\xff")),
    "failure": Target(_failure, (JSON.dumps(_FAILED.to_data()),)),
    "url": Target(
        _url,
        (b"redis://u:p%40@h1:1,h2:2/0?a=b&upshot_lease=5", b"amqp://a:b@c//;amqp://d:e@f//",
         b"mongodb+srv://u@[::1]:5/db?authMechanismProperties=A:b"),
    ),
    "mask": Target(_mask, (b"cannot reach 'redis://u:p@h:1/0?token=x', amqp://a:b@c",)),
    "secret": Target(_secret, (b"see amqp://?password=x&", b"'(?")),
    "amqp-reply": Target(
        _reply,
        (b'{"upshot-key":"k","upshot-rank":5,"upshot-barrier":7,"upshot-expires":1000}',),
    ),
    "amqp-letter": Target(_letter, (b'{"id":"x","priority":5,"counted":1,"eta":"1.5"}',)),
    "memcached-wire": Target(
        _memcached, (b"VALUE k 0 3 77\r\nabc\r\nEND\r\nSTORED\r\nEXISTS\r\n",)
    ),
    "memcached-item": Target(
        _item,
        (layout.whole(b"body", barrier=5, moment=2e9),
         layout.head(layout.Parts.of(b"x"), barrier=5, moment=2e9)),
    ),
    "environment": Target(_environment, (b"\0redis://u:p@h", b"\x015.5", b"\x02a,b", b"\x03none")),
    "task-id": Target(_task_id, ("a:b é\u202e".encode(), b"x" * 255)),
}  # fmt: skip
"""Every decoder by name."""
