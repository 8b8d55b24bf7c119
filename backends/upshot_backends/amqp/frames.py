"""The frames of a message on its way to the server, and those of the server's confirms.

pika makes an object for each part of each frame; this takes a fifth of the time. The format:
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, sections 2.3.5, 4.2 and 4.2.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, NamedTuple

from pika import data, exceptions  # type: ignore[import-untyped]

__all__ = ["CONFIRM", "Confirm", "confirm_at", "publication"]

_END: Final = b"\xce"
_FRAME: Final = Struct(">BHI")  # kind, channel, length of what follows
_LENGTH: Final = Struct(">I")
_TEXT: Final = Struct(">cI")
_NUMBER: Final = Struct(">ci")
_HEADER: Final = Struct(">HHQH")  # class, weight, length of the body, which properties there are
_SHORTEST: Final = -(2**31)
_LONGEST: Final = 2**31 - 1
_SHORT: Final = 255  # bytes of a short string

_METHOD, _CONTENT, _BODY = 1, 2, 3  # kinds of frames
_BASIC: Final = 60  # the class
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00\x00"  # class, method, 0, the default exchange
_MANDATORY: Final = b"\x01"

_CONFIRM: Final = Struct(">BHIHHQBB")  # kind, channel, 13, class, method, tag, multiple, end
_ACK: Final = (_METHOD, 13, _BASIC, 80, 0xCE)

CONFIRM: Final = _CONFIRM.size
"""Bytes of the frame that confirms messages."""


class Confirm(NamedTuple):
    """What the server says of messages that it has safe.

    Attributes:
        channel: the number of the channel they were published through.
        tag: the number of the message.
        multiple: all before it are meant too.
    """

    channel: int
    tag: int
    multiple: bool


def confirm_at(buffer: bytes, position: int) -> Confirm | None:
    """Return the confirm whose frame begins there; None if another one does, or it is cut off."""
    if len(buffer) - position < CONFIRM:
        return None
    kind, channel, size, family, method, tag, multiple, end = _CONFIRM.unpack_from(buffer, position)
    if (kind, size, family, method, end) != _ACK:
        return None
    return Confirm(channel, tag, bool(multiple))


def publication(
    channel: int,
    queue: str,
    body: bytes,
    *,
    longest: int,
    number: int,
    headers: Mapping[str, Any],
    persistent: bool,
    priority: int | None,
    expires: int | None,
    correlation_id: str | None,
    kind: str | None,
) -> bytes:
    """Return the frames of a mandatory message to a queue, through the default exchange.

    Args:
        channel: the number of the channel.
        queue: its whole name.
        body: opaque.
        longest: bytes of the body in one frame.
        number: AMQP's `message-id`.
        headers, persistent, priority, expires, correlation_id, kind: as in `Parcel`.

    Raises:
        AMQPError: a text is longer than AMQP takes it.
    """
    method = b"%b%b%b" % (_PUBLISH, _short(queue), _MANDATORY)
    flags = 0x3080  # headers, delivery mode, message id
    properties = [_table(headers), b"\x02" if persistent else b"\x01"]
    if priority is not None:
        flags |= 0x0800
        properties.append(priority.to_bytes())
    if correlation_id is not None:
        flags |= 0x0400
        properties.append(_short(correlation_id))
    if expires is not None:
        flags |= 0x0100
        properties.append(_short(str(expires)))
    properties.append(_short(str(number)))
    if kind is not None:
        flags |= 0x0020
        properties.append(_short(kind))
    content = _HEADER.pack(_BASIC, 0, len(body), flags) + b"".join(properties)
    pieces = [
        _FRAME.pack(_METHOD, channel, len(method)),
        method,
        _END,
        _FRAME.pack(_CONTENT, channel, len(content)),
        content,
        _END,
    ]
    if 0 < len(body) <= longest:
        pieces += (_FRAME.pack(_BODY, channel, len(body)), body, _END)
    else:
        for start in range(0, len(body), longest):
            part = body[start : start + longest]
            pieces += (_FRAME.pack(_BODY, channel, len(part)), part, _END)
    return b"".join(pieces)


def _short(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _SHORT:
        raise exceptions.ShortStringTooLong(encoded)
    return b"%c%b" % (len(encoded), encoded)


def _table(headers: Mapping[str, Any]) -> bytes:
    pieces: list[bytes] = []
    for name, value in headers.items():
        pieces.append(_short(name))
        if type(value) is str:
            encoded = value.encode()
            pieces += (_TEXT.pack(b"S", len(encoded)), encoded)
        elif type(value) is int and _SHORTEST <= value <= _LONGEST:
            pieces.append(_NUMBER.pack(b"I", value))
        else:
            data.encode_value(pieces, value)
    table = b"".join(pieces)
    return _LENGTH.pack(len(table)) + table
