"""The frames that are made here are those that pika makes and reads."""

from __future__ import annotations

from typing import Any

import pika  # type: ignore[import-untyped]
import pytest
from pika import exceptions, frame, spec

from upshot_backends.amqp.frames import CONFIRM, Confirm, confirm_at, publication

_LONGEST = 100  # bytes of a body in one frame


def published(**changed: Any) -> bytes:
    given: dict[str, Any] = {
        "queue": "a/queue",
        "body": b"body",
        "longest": _LONGEST,
        "number": 7,
        "headers": {},
        "persistent": True,
        "priority": None,
        "expires": None,
        "correlation_id": None,
        "kind": None,
    }
    given |= changed
    return publication(3, given.pop("queue"), given.pop("body"), **given)


def by_pika(**changed: Any) -> bytes:
    body = changed.get("body", b"body")
    expires = changed.get("expires")
    properties = pika.BasicProperties(
        headers=changed.get("headers", {}),
        delivery_mode=2 if changed.get("persistent", True) else 1,
        priority=changed.get("priority"),
        correlation_id=changed.get("correlation_id"),
        expiration=None if expires is None else str(expires),
        message_id="7",
        type=changed.get("kind"),
    )
    method = spec.Basic.Publish(routing_key=changed.get("queue", "a/queue"), mandatory=True)
    frames = [frame.Method(3, method), frame.Header(3, len(body), properties)]
    frames += [
        frame.Body(3, body[start : start + _LONGEST]) for start in range(0, len(body), _LONGEST)
    ]
    return b"".join(each.marshal() for each in frames)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"queue": "ü" * 127},
        {"body": b""},
        {"body": b"x" * _LONGEST},
        {"body": b"x" * (2 * _LONGEST + 1)},
        {"persistent": False},
        {"priority": 0},
        {"priority": 19},
        {"expires": 2**32 - 1},
        {"correlation_id": "", "kind": "SUCCESS"},
        {"priority": 3, "expires": 1, "correlation_id": "c", "kind": "k"},
        {"headers": {"text": "ü", "empty": "", "bytes": b"\x00\xff", "flag": True}},
        {"headers": {"a": 0, "b": -(2**31), "c": 2**31 - 1, "d": 2**31, "e": 2**62, "f": -(2**40)}},
        {"headers": {"list": [1, "a"], "table": {"none": None}}},
    ],
)
def test_a_message_is_what_pika_makes_of_it(changed: dict[str, Any]) -> None:
    assert published(**changed) == by_pika(**changed)


@pytest.mark.parametrize(
    "changed",
    [{"queue": "x" * 256}, {"correlation_id": "x" * 256}, {"kind": "ü" * 128}],
)
def test_a_text_that_is_too_long_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(exceptions.ShortStringTooLong):
        published(**changed)


@pytest.mark.parametrize("multiple", [False, True])
def test_a_confirm_is_read_wherever_it_begins(multiple: bool) -> None:
    made = frame.Method(5, spec.Basic.Ack(2**40, multiple)).marshal()
    assert len(made) == CONFIRM
    assert confirm_at(b"before" + made + b"after", 6) == Confirm(5, 2**40, multiple)


@pytest.mark.parametrize(
    "made",
    [
        b"",
        frame.Method(5, spec.Basic.Ack(1)).marshal()[:-1],
        frame.Method(5, spec.Basic.Ack(1)).marshal()[:-1] + b"\x00",
        frame.Method(5, spec.Basic.Nack(1)).marshal(),
        frame.Heartbeat().marshal() * 3,
        frame.Body(5, b"x" * 100).marshal(),
    ],
)
def test_what_is_no_confirm_is_left_to_pika(made: bytes) -> None:
    assert confirm_at(made, 0) is None
