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
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn, cast

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
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
    headers: Mapping[str, Any] = field(default_factory=lambda: _NO_HEADERS)
    ignore_result: bool = False
    result_expires: float | None = -1.0
    time_limit: float | None = -1.0
    soft_time_limit: float | None = -1.0
    retry: RetryPolicy | None = None
    reply_to: str = ""

    def encode(self) -> bytes:
        """Return the message as bytes, in the layout of this module."""
        header: dict[str, Any] = {"c": self.arguments.content_type}
        for name, (default, _) in _FIELDS.items():
            value = getattr(self, name)
            if value != default or name in _REQUIRED:
                header[name] = dict(value) if name == "headers" else value
        if self.retry is not None:
            header["retry"] = dataclasses.asdict(self.retry)
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        encoded = text.encode()
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
            body = data[_PREFIX.size :]
            if version != _VERSION or zlib.crc32(body, length) != checksum:
                raise ValueError(f"no undamaged message of version {_VERSION.decode()}")
            header = _HEADER.decode(body[:length].decode())
            return cls(**_fields_of(header, body[length:]))
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


# Name → (default, accepted types) for everything but the arguments and the retry policy.
_FIELDS: Final[dict[str, tuple[object, tuple[type, ...]]]] = {
    "task_id": ("", (str,)),
    "name": ("", (str,)),
    "queue": ("", (str,)),
    "priority": (0, (int,)),
    "eta": (None, (*_NUMBER, type(None))),
    "expires": (None, (*_NUMBER, type(None))),
    "attempt": (1, (int,)),
    "retries": (0, (int,)),
    "queued_at": (None, (*_NUMBER, type(None))),
    "headers": (_NO_HEADERS, (dict,)),
    "ignore_result": (False, (bool,)),
    "result_expires": (-1.0, (*_NUMBER, type(None))),
    "time_limit": (-1.0, (*_NUMBER, type(None))),
    "soft_time_limit": (-1.0, (*_NUMBER, type(None))),
    "reply_to": ("", (str,)),
}
_REQUIRED: Final = frozenset({"task_id", "name", "queue"})


def _fields_of(header: Any, payload: bytes) -> dict[str, Any]:
    """Return the keywords for `Message` that a decoded header stands for, all checked."""
    if not isinstance(header, dict):
        raise TypeError("its header is not an object")
    header = cast("dict[str, Any]", header)
    fields: dict[str, Any] = {}
    for name, (default, kinds) in _FIELDS.items():
        value = header.get(name, default)
        is_one = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        if value is not default and not is_one:
            raise TypeError(f"its {name} is of the wrong type")
        fields[name] = value
    _check_values(fields)
    content_type = header.get("c")
    if not isinstance(content_type, str):
        raise TypeError("its content type is missing")
    content_type.encode()  # half a surrogate pair is no text
    retry = header.get("retry")
    if retry is not None:
        fields["retry"] = RetryPolicy(**retry)
    return fields | {"arguments": Payload(content_type, payload)}


def _check_values(fields: Mapping[str, Any]) -> None:
    """Refuse what no sender sends and no worker could live with.

    Its outcome could not be stored, or its message not be sent again; so it would come back for
    ever, and each time for nothing.
    """
    check_task_id(fields["task_id"])
    if not is_name(fields["name"]) or not is_name(fields["queue"]):
        raise ValueError("it names no task or no queue")
    if fields["reply_to"] and not is_name(fields["reply_to"]):
        raise ValueError("its reply_to is no address")
    for name, least, most in (
        ("attempt", 1, MAX_ATTEMPT),
        ("retries", 0, MAX_ATTEMPT),
        ("priority", 0, MAX_PRIORITY),
    ):
        if not least <= fields[name] <= most:
            raise ValueError(f"its {name} is out of range")
    for name in _MOMENTS:
        if fields[name] is not None and not clock.is_moment(fields[name]):
            raise ValueError(f"its {name} is in no calendar")
    for name in _DURATIONS:
        seconds = fields[name]
        if seconds not in (None, _AS_SET) and not 0 < seconds <= LONGEST:
            raise ValueError(f"its {name} is no duration")
    json.dumps(
        dict(fields["headers"]), ensure_ascii=False
    ).encode()  # half a surrogate pair is no text
