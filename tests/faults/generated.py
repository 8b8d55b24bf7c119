"""Bytes by chance, from near what is right to far from it: records and messages by the thousand."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from upshot.failure import describe
from upshot.record import Payload, Record
from upshot.serializers import JsonSerializer
from upshot.states import State
from upshot_conformance.suite.forge import TEXTS, forged, parts_of

from .hostility import sealed

__all__ = ["generated_message", "generated_record"]

_TOKENS: Final = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 400, b'"\\ud800"', b'"\x1b[31m"', b"{}",
    b"[]", b'{"$tuple":[]}', b'{"$bytes":"="}', b'{"$int":"0x"}', b"\xff", b"\0", b'"' * 3,
    b"[" * 2000, b'"a\\n[2026-01-01 00:00:00,000: ERROR/MainProcess] FORGED"',
    b'"jobs.echo"', b'"os.system"',
)  # fmt: skip
"""What is put in the place of something else: values that are odd, and halves of values."""

_JSON: Final = JsonSerializer()
_VALUES: Final = {
    State.SUCCESS: _JSON.dumps({"a": [(1, 2.5), b"raw", {1: {"x"}}, 2**70]}),
    State.FAILURE: _JSON.dumps(describe(OSError(2), encodable=_JSON.can_encode).to_data()),
}
_KINDS: Final = ("json", "msgpack", "pickle", "yaml", "", "x\n", None, 5)


def generated_record(dice: random.Random, task_id: str) -> bytes:
    """Return what stands where the record of `task_id` belongs; it may happen to be one."""
    state = dice.choice([*_VALUES])
    value = _VALUES[state]
    good = Record(task_id=task_id, state=state, outcome=Payload("json", value))
    parts = parts_of(good)

    def with_a_text() -> bytes:
        return parts.saying(dice.randrange(TEXTS), str(_anything(dice))).encode()

    def with_a_number() -> bytes:
        number = dice.choice([0, 2**31, 2**32 - 1, dice.randrange(100)])
        ways = (
            parts._replace(kind=number & 255),
            parts._replace(attempt=number),
            parts._replace(texts_length=number),
            parts._replace(info_length=number),
        )
        return dice.choice(ways).encode()

    ways = (
        lambda: dice.randbytes(dice.randrange(200)),
        lambda: _mangled(dice, good.encode()),
        lambda: forged(_mangled(dice, parts.encode()[6:])),
        lambda: parts.telling(_mangled(dice, parts.texts)).encode(),
        lambda: parts._replace(payloads=_mangled(dice, value)).encode(),
        with_a_text,
        with_a_number,
    )
    return dice.choice(ways)()


def generated_message(dice: random.Random, task_id: str) -> bytes:
    """Return what stands where a message to `jobs.echo` belongs; it may happen to be one."""
    good: dict[str, Any] = {"c": "json", "task_id": task_id, "name": "jobs.echo",
                            "queue": "default", "headers": {"a": 1}}  # fmt: skip
    value = b'[["one"],{}]'
    names = (*good, "eta", "expires", "priority", "attempt", "retry", "time_limit", "reply_to")

    def with_a_field() -> bytes:
        return sealed(good | {dice.choice(names): _anything(dice)}, value)

    ways = (
        lambda: dice.randbytes(dice.randrange(200)),
        lambda: _mangled(dice, sealed(good, value)),
        lambda: sealed(_mangled(dice, json.dumps(good).encode()), value),
        lambda: sealed(good | {"c": dice.choice(_KINDS)}, _mangled(dice, value)),
        with_a_field,
    )
    return dice.choice(ways)()


def _mangled(dice: random.Random, data: bytes) -> bytes:
    """Return bytes after one to four changes."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data) + 1)
        end = min(len(data), start + dice.choice([0, 1, 1, 2, 8, 50]))
        middle = dice.choice(
            [b"", dice.randbytes(end - start), dice.choice(_TOKENS), data[start:end] * 2]
        )
        data = data[:start] + middle + data[end:]
    return data


def _anything(dice: random.Random, depth: int = 0) -> object:
    """Return plain data of any shape."""
    kind = dice.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return [_anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    if kind == 8:
        return {f"{_anything(dice, 3)}"[:40]: _anything(dice, depth + 1) for _ in range(3)}
    return (
        None,
        dice.random() < 0.5,
        dice.choice([0, -1, 2**31, 2**63, 10**40, dice.randrange(100)]),
        dice.choice([0.5, -1e-9, 1e308, 1.5e9, 4e9]),
        "".join(map(chr, dice.choices(range(0x20, 0x250), k=dice.randrange(30)))),
        dice.choice(["\x1b[31mred", "a\n[2026-01-01] FORGED", "\ud800", "x" * 70_000, "jobs.none"]),
        dice.choice(["SUCCESS", "json", "default", "", "{}", "%s", "$where", "*"]),
    )[kind]
