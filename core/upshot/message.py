"""A message: one request to run a task, and its form in bytes.

Layout of an encoded message (network byte order):

    "m1"  version of this layout
    4     CRC-32 of everything after it
    4     length of the header
    n     header: a UTF-8 JSON object, fields at their default left out
    …     payload: the positional and keyword arguments, as one list of two
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn, cast

from upshot import clock
from upshot.errors import ConfigError, DecodeError, InvalidTaskIdError
from upshot.record import Payload, check_task_id, printable
from upshot.states import MAX_ATTEMPT

__all__ = ["LONGEST", "MAX_NAME", "MAX_PRIORITY", "Message", "RetryPolicy", "is_name"]

MAX_NAME: Final = 255
"""The longest name of a task or queue, in characters."""

LONGEST: Final = 9e9
"""The longest duration in a message, in seconds: 285 years, just under what Python can wait."""

MAX_PRIORITY: Final = 9
"""Priorities are 0 to 9; larger runs first (as in AMQP 0-9-1 brokers and Celery)."""

_VERSION: Final = b"m1"
_PREFIX: Final = struct.Struct("!2sII")
_NO_HEADERS: Final[Mapping[str, Any]] = MappingProxyType({})
_NUMBER: Final = (int, float)
_MOMENTS: Final = ("eta", "expires", "queued_at")
_DURATIONS: Final = ("result_expires", "time_limit", "soft_time_limit")
_AS_SET: Final = -1.0


def is_name(name: object) -> bool:
    """Tell whether something may name a task or a queue: 1 to 255 printable characters."""
    return type(name) is str and name.isprintable() and 1 <= len(name) <= MAX_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated.

    Attributes:
        max_retries: repetitions after the first attempt; 0 for none, None for no limit.
        backoff: seconds before the first repetition; each further one waits twice as long.
        backoff_max: seconds that no repetition waits longer than.
        jitter: whether to wait a random part of that time, so that tasks that failed together do
            not come back together.
    """

    max_retries: int | None = 3
    backoff: float = 1.0
    backoff_max: float = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        for name, value in (("backoff", self.backoff), ("backoff_max", self.backoff_max)):
            if type(value) not in _NUMBER or not 0 <= value <= LONGEST:
                raise ConfigError(
                    f"{name} is zero or more seconds, at most {LONGEST:g}; not {value!r}"
                )
        if type(self.jitter) is not bool:
            raise ConfigError(f"jitter is True or False, not {self.jitter!r}")
        retries = self.max_retries
        if retries is not None and not (type(retries) is int and retries >= 0):
            raise ConfigError(f"max_retries is 0 or more, or None; not {self.max_retries!r}")


class Message(NamedTuple):
    """One request to run a task.

    Attributes:
        task_id: whose record the outcome goes to.
        name: the registered name of the task.
        arguments: `[args, kwargs]`, encoded.
        queue: where it waits.
        priority: 0 to 9, larger first.
        eta: not before this moment, seconds since the epoch; None for at once.
        expires: not started after this moment, seconds since the epoch; None for never.
        attempt: the number that its first delivery has; redeliveries count up from it.
        retries: how many of the attempts before were retries (not redeliveries).
        queued_at: when it was first sent, seconds since the epoch.
        headers: whatever the sender wants to travel along; plain JSON values.
        ignore_result: True writes no record at all.
        result_expires: seconds to keep the outcome; None for ever; -1 as the worker is set.
        time_limit: seconds; None for no limit, -1 as the task is set. Likewise `soft_time_limit`.
        retry: overrides the task's own policy; None does not.
        reply_to: where a backend that carries results sends them; "" for one that stores them.
    """

    task_id: str
    name: str
    arguments: Payload
    queue: str
    priority: int = 0
    eta: float | None = None
    expires: float | None = None
    attempt: int = 1
    retries: int = 0
    queued_at: float | None = None
    headers: Mapping[str, Any] = _NO_HEADERS
    ignore_result: bool = False
    result_expires: float | None = -1.0
    time_limit: float | None = -1.0
    soft_time_limit: float | None = -1.0
    retry: RetryPolicy | None = None
    reply_to: str = ""

    def encode(self) -> bytes:
        """Return the message as bytes, in the layout of this module."""
        header: dict[str, Any] = {"c": self.arguments.content_type}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                header[name] = value
        if self.headers:
            header["headers"] = dict(self.headers)
        if self.retry is not None:
            header["retry"] = dataclasses.asdict(self.retry)
        encoded = _ENCODER.encode(header).encode()
        body = encoded + self.arguments.body
        return _PREFIX.pack(_VERSION, zlib.crc32(body, len(encoded)), len(encoded)) + body

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Read an encoded message back.

        Raises:
            DecodeError: the bytes are not a message of this version, or a field has a wrong
                type. What a broker holds is written by others; nothing in it is trusted.
        """
        try:
            version, checksum, length = _PREFIX.unpack_from(data)
            body = memoryview(data)[_PREFIX.size :]
            if version != _VERSION or zlib.crc32(body, length) != checksum:
                raise ValueError(f"no undamaged message of version {_VERSION.decode()}")
            end = _PREFIX.size + length
            return cls(**_fields_of(_HEADER.decode(data[_PREFIX.size : end].decode()), data[end:]))
        except (ValueError, TypeError, struct.error, RecursionError, InvalidTaskIdError) as exc:
            reason = printable(str(exc))  # it may quote what somebody wrote
            raise DecodeError(
                f"not a message that this version of upshot can run: {reason}"
            ) from exc


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number in it is too large")
    return number


# Strict, as a header is written again when the task is retried or given back.
_HEADER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


# Every field but the arguments and the retry policy: the types that it has in a header.
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "task_id": (str,),
    "name": (str,),
    "queue": (str,),
    "priority": (int,),
    "eta": (*_NUMBER, type(None)),
    "expires": (*_NUMBER, type(None)),
    "attempt": (int,),
    "retries": (int,),
    "queued_at": (*_NUMBER, type(None)),
    "headers": (dict,),
    "ignore_result": (bool,),
    "result_expires": (*_NUMBER, type(None)),
    "time_limit": (*_NUMBER, type(None)),
    "soft_time_limit": (*_NUMBER, type(None)),
    "reply_to": (str,),
}
_MISSING: Final = object()
_DEFAULTS: Final[dict[str, object]] = {
    name: Message._field_defaults.get(name, _MISSING) for name in _KINDS if name != "headers"
}
_RANGES: Final = {
    "attempt": (1, MAX_ATTEMPT),
    "retries": (0, MAX_ATTEMPT),
    "priority": (0, MAX_PRIORITY),
}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _fields_of(header: Any, payload: bytes) -> dict[str, Any]:
    """Return the keywords for `Message` that a decoded header stands for, all checked."""
    if not isinstance(header, dict):
        raise TypeError("its header is not an object")
    header = cast("dict[str, Any]", header)
    content_type = header.pop("c", None)
    if not isinstance(content_type, str):
        raise TypeError("its content type is missing")
    content_type.encode()  # half a surrogate pair is no text
    fields: dict[str, Any] = {"arguments": Payload(content_type, payload)}
    retry = header.pop("retry", None)
    if retry is not None:
        fields["retry"] = RetryPolicy(**retry)
    for name, value in header.items():
        kinds = _KINDS.get(name)
        if kinds is None:  # of a later version
            continue
        if type(value) not in kinds:
            raise TypeError(f"its {name} is of the wrong type")
        _check_value(name, value)
        fields[name] = value
    check_task_id(fields.get("task_id"))
    if not is_name(fields.get("name")) or not is_name(fields.get("queue")):
        raise ValueError("it names no task or no queue")
    return fields


def _check_value(name: str, value: Any) -> None:
    """Refuse what no sender sends and no worker could live with.

    Its outcome could not be stored, or its message not be sent again; so it would come back for
    ever, and each time for nothing.
    """
    if name in _RANGES:
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise ValueError(f"its {name} is out of range")
    elif name in _MOMENTS:
        if value is not None and not clock.is_moment(value):
            raise ValueError(f"its {name} is in no calendar")
    elif name in _DURATIONS:
        if value not in (None, _AS_SET) and not 0 < value <= LONGEST:
            raise ValueError(f"its {name} is no duration")
    elif name == "reply_to":
        if value and not is_name(value):
            raise ValueError("its reply_to is no address")
    elif name == "headers":
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
