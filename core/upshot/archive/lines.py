r"""Records as lines of text.

A line is one JSON object in ASCII, without an end of line. It says all that a record holds:

    {"upshot_record": 1, "id": "4c1b…", "state": "SUCCESS", "attempt": 1, "name": "shop.order",
     "queue": "default", "worker": "host-7", "token": "9f…", "queued_at": 1767225600.25,
     "started_at": 1767225600.5, "finished_at": 1767225601.75, "info": null,
     "outcome": {"content_type": "json", "text": "{\"total\": 12}"}}

`upshot_record` is the version of this form. Moments are seconds since the epoch, exact to the last
bit; null stands for what has not happened. The bytes of a payload stand as `text` if they are
UTF-8, otherwise as `base64`. They are copied and never decoded, so it takes no serializer, and no
trust in whoever wrote them, to move them.

How long a record is still to be kept is not among it: no service tells. Whoever stores a record
anew says for how long, counted from then.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final, NoReturn, cast

from upshot.content_types import CLAIM
from upshot.errors import DecodeError, UpshotError
from upshot.items import index_of
from upshot.record import Payload, Record, check_task_id
from upshot.states import State

__all__ = ["VERSION", "from_line", "longest_line", "to_line"]

VERSION: Final = 1
"""The version of the form of a line. Others are refused."""

_FORM: Final = "upshot_record"
_PAYLOADS: Final = ("info", "outcome")
_PLAIN: Final = tuple(name for name in Record._fields if name not in ("task_id", *_PAYLOADS))
_FIELDS: Final = (_FORM, "id", *_PLAIN, *_PAYLOADS)
_ESCAPED: Final = 6  # characters of one byte at most: `\u0000`
_AROUND: Final = 65_536  # characters: more than all texts of a record and the names of the fields


def to_line(record: Record) -> str:
    """Return a record as a line of text, in the form of this module; only ASCII, no end of line."""
    data: dict[str, object] = {_FORM: VERSION, "id": record.task_id}
    data |= {name: getattr(record, name) for name in _PLAIN}
    data |= {name: _written(getattr(record, name)) for name in _PAYLOADS}
    return json.dumps(data, allow_nan=False)


def from_line(line: str | bytes) -> Record:
    """Return the record that `to_line` wrote: its encoded form is the same to the last byte.

    Raises:
        DecodeError: the line is no such record; fields that are unknown, missing or of the wrong
            type are named.
    """
    data = _read_object(line)
    version = data.get(_FORM)
    if version != VERSION or type(version) is not int:
        raise DecodeError(f"it is no record: {_FORM!r} is not {VERSION}, the version read here")
    for name in _FIELDS:
        if name not in data:
            raise DecodeError(f"the field {name!r} is missing")
    for name in data:
        if name not in _FIELDS:
            raise DecodeError(f"the field {name!r:.80} is none of version {VERSION}")
    try:
        record = Record(
            task_id=check_task_id(data["id"]),
            state=_text(data, "state"),
            attempt=_of_type(data, "attempt", int),
            name=_text(data, "name"),
            queue=_text(data, "queue"),
            worker=_text(data, "worker"),
            token=_text(data, "token"),
            queued_at=_moment(data, "queued_at"),
            started_at=_moment(data, "started_at"),
            finished_at=_moment(data, "finished_at"),
            info=_payload(data, "info"),
            outcome=_payload(data, "outcome"),
        )
        if record.state in ("", State.PENDING):
            raise DecodeError(f"{record.state!r} is the state of no record")
        if index_of(record) is not None or _is_claim(record):
            raise DecodeError("it is an item of a stream, or a claim of a key: no record of a task")
        return Record.decode(record.encode())  # it checks the rest: ranges, calendars, outcomes
    except DecodeError:
        raise
    except (UpshotError, ValueError, OverflowError) as exc:
        raise DecodeError(str(exc)) from exc


def _is_claim(record: Record) -> bool:
    return record.outcome is not None and record.outcome.content_type.startswith(CLAIM)


def longest_line(max_bytes: int) -> int:
    """Return how many characters a line has at most that holds a record of `max_bytes` bytes."""
    return _ESCAPED * max_bytes + _AROUND


def _written(payload: Payload | None) -> dict[str, str] | None:
    if payload is None:
        return None
    try:
        return {"content_type": payload.content_type, "text": payload.body.decode()}
    except UnicodeDecodeError:
        encoded = base64.b64encode(payload.body).decode()
        return {"content_type": payload.content_type, "base64": encoded}


def _read_object(line: str | bytes) -> dict[str, Any]:
    try:
        data: object = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"it is no JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise DecodeError("it is no JSON object")
    return cast("dict[str, Any]", data)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _of_type(data: dict[str, Any], name: str, kind: type[Any]) -> Any:
    value = data[name]
    if type(value) is not kind:
        raise DecodeError(f"the field {name!r} is of type {type(value).__name__}")
    return value


def _text(data: dict[str, Any], name: str) -> str:
    text: str = _of_type(data, name, str)
    return text


def _moment(data: dict[str, Any], name: str) -> float | None:
    value = data[name]
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise DecodeError(f"the field {name!r} is no number of seconds")
    return float(value)


def _payload(data: dict[str, Any], name: str) -> Payload | None:
    value = data[name]
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DecodeError(f"the field {name!r} is no payload")
    payload = cast("dict[str, Any]", value)
    content_type = payload.get("content_type")
    if type(content_type) is str and all(type(text) is str for text in payload.values()):
        if payload.keys() == {"content_type", "text"}:
            return Payload(content_type, payload["text"].encode())
        if payload.keys() == {"content_type", "base64"}:
            return Payload(content_type, base64.b64decode(payload["base64"], validate=True))
    raise DecodeError(f"the field {name!r} is no content_type with a text or a base64")
