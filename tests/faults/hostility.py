"""What somebody who means harm may write: names, values, records and messages, by kind.

Every text that is shown somewhere has a word of its own, so that a test can tell where it came
out, and `assert_harmless` says what no line of output may have in it.
"""

from __future__ import annotations

import json
import math
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from upshot.message import Message
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.suite.forge import TEXTS, parts_of

__all__ = [
    "FORBIDDEN_NAMES",
    "ODD_NAMES",
    "TERMINAL_TEXTS",
    "VALUE_BOMBS",
    "flaws_of",
    "hostile_messages",
    "hostile_records",
    "sealed",
    "with_canary",
]

ODD_NAMES: Final = (
    # commands and operators of the services
    "'; DROP TABLE upshot_results;--", '"; --', "1 OR 1=1", "$where", "$gt", '{"$gt": ""}', "a.b.c",
    "set x 0 0 1", "*", "a?[b]", "\\0", "%s%n", "%(x)s", "{0.__class__}", "${jndi:ldap://x/a}",
    "{tag}a", "{}", "}{", "KEYS[1]", "redis.call('FLUSHALL')", "#.#", "*.*", "amq.gen", "a/b", "..",
    "../../etc/passwd", "/etc/passwd", "C:\\x", "~root", "%2e%2e%2f", "%00", "a b", " a ", "--help",
    "-A", "@file", "`touch x`", "$(touch x)", ";", "|", "&&", "os.system", "__import__", "null",
    "[red]x[/red]", "[link=http://x]y[/link]", ":skull:", "<script>", "שלום", "é", "e\u0301",
    "\N{CRAB}" * 63, "x" * 255,
)  # fmt: skip
"""Ids, and names of tasks, queues and namespaces, that are allowed, however odd they are."""

FORBIDDEN_NAMES: Final = (
    "", "a\nb", "a\r\nset pwned 0 0 1\r\nx", "\0", "\t", "\x1b[31m", "\x7f", "\x9b31m", "\ud800",
    "x" * 256, "x" * 10**6,
)  # fmt: skip
"""What may name nothing at all."""

TERMINAL_TEXTS: Final = (
    "\x1b[31mred", "\x1b]8;;http://x\x1b\\link", "\x1b]52;c;aGFjaw==\x07", "\x07", "\x08\x08\x08",
    "a\rb", "a\x9b2Jb", "\x9d0;title\x9c", "\u202etxt.exe", "\u2066\u2067", "\x1bP+q\x1b\\",
    "\x1bc", "\u2028", "\x85", "[bold red]markup[/bold red]", "[link=http://x]y[/link]", "[/]",
    "\\[red]", "x\n[2026-01-01 00:00:00,000: ERROR/MainProcess] FORGED",
    "x\r\n[2026: INFO] FORGED", "\ud800",
)  # fmt: skip
"""What would colour, move, title, fill the clipboard of or otherwise drive a terminal, or pass for
another line of a log."""

_LINE_OF_LOG: Final = re.compile(r"^\[[^\]]*\] FORGED", re.MULTILINE)


def flaws_of(output: str) -> Iterator[str]:
    """Yield what output has in it that it must not have: control characters and forged lines."""
    for character in sorted(set(output) - {"\n"}):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            yield f"U+{ord(character):04X} was shown as it is"
    if _LINE_OF_LOG.search(output):
        yield "a line of a log was forged"
    if "Traceback (most recent call last)" in output and "/upshot/" in output:
        yield "it ended in a traceback of ours"


def _bombs() -> dict[str, tuple[str, bytes]]:
    """Return values that unfold, by what they are: (content type, bytes)."""
    return {
        "lists, 100 000 deep": ("json", b"[" * 100_000 + b"]" * 100_000),
        "dicts, 100 000 deep": ("json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "tags, 50 000 deep": ("json", b'{"$tuple":[' * 50_000 + b"]}" * 50_000),
        "an integer of 100 000 digits": ("json", b"9" * 100_000),
        "a float of 100 000 digits": ("json", b"1." + b"9" * 100_000 + b"x"),
        "NaN": ("json", b"NaN"),
        "keys twice": ("json", b'{"a":1,"a":2}'),
        "a decimal that is huge": ("json", b'{"$decimal":"1E+9999999999999999999999"}'),
        "hexadecimal rubbish": ("json", b'{"$int":"0x' + b"f" * 10**6 + b'g"}'),
        "UTF-16": ("json", "[1]".encode("utf-16")),
        "half a surrogate pair in bytes": ("json", b'"\xed\xa0\x80"'),
        "an array of 4 G": ("msgpack", b"\xdd\xff\xff\xff\xff"),
        "bytes of 4 G": ("msgpack", b"\xc6\xff\xff\xff\xff"),
        "text of 4 G": ("msgpack", b"\xdb\xff\xff\xff\xff"),
        "a map of 4 G": ("msgpack", b"\xdf\xff\xff\xff\xff"),
        "an extension of 4 G": ("msgpack", b"\xc9\xff\xff\xff\xff\x05"),
        "an extension": ("msgpack", b"\xd4\x05\x00"),
        "a timestamp": ("msgpack", b"\xd6\xff\x00\x00\x00\x01"),
        "arrays, 100 000 deep": ("msgpack", b"\x91" * 100_000 + b"\x01"),
        "a list for a key": ("msgpack", b"\x81\x90\x01"),
        "a pickle that says it is JSON": ("json", b"\x80\x05K\x01."),
        "YAML": ("yaml", b"!!python/object/apply:os.system ['true']"),
        "an unknown type": ("x\n[2026] FORGED\x1b[31m", b"1"),
    }


VALUE_BOMBS: Final = _bombs()
"""What stands for a value or arguments and must be refused, quickly and in little memory."""


def with_canary(canary: Path) -> dict[str, bytes]:
    """Return pickles that make the file `canary` if anybody loads them, by how they do it."""
    command = f"open({str(canary)!r}, 'w').close()".encode()
    quoted = command.replace(b"'", b"\\'")
    return {
        "exec, protocol 0": b"cbuiltins\nexec\n(S'" + quoted + b"'\ntR.",
        "os.system": f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode(),
        "exec, protocol 2": b"\x80\x02cbuiltins\nexec\nX"
        + struct.pack("<I", len(command)) + command + b"\x85R.",
    }  # fmt: skip


def sealed(header: object, payload: bytes = b"", *, version: bytes = b"m1") -> bytes:
    """Return bytes in the layout of a message, with a right checksum.

    Args:
        header: plain data, or the bytes in its place.
        payload: the arguments.
        version: two bytes; `b"m1"` is the one that can be read.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = text + payload
    return struct.pack("!2sII", version, zlib.crc32(body, len(text)), len(text)) + body


def _spoilt(record: Record) -> Iterator[tuple[str, bytes]]:
    """Yield a record with something else in one place, under a right checksum."""
    parts = parts_of(record)
    for bits in (*(1 << bit for bit in range(8)), 7, 255):
        yield f"a kind that differs in {bits:b}", parts._replace(kind=parts.kind ^ bits).encode()
    for number in (0, 2**26 + 1, 2**32 - 1):
        yield f"attempt {number}", parts._replace(attempt=number).encode()
    for more in (-1, 1, 2, 2**30, 2**31, 2**32 - 1000):
        length = parts.texts_length + more
        yield f"texts of {more:+} bytes", parts._replace(texts_length=length).encode()
        yield f"an info of {more:+} bytes", parts._replace(info_length=max(more, 0)).encode()
    for moment in (-1e308, 1e308, math.inf, math.nan):
        for there in range(1, 8):
            moments = (moment,) * there.bit_count()
            dated = parts._replace(kind=parts.kind & ~(7 << 3) | there << 3, moments=moments)
            yield f"moments {there:b} are {moment}", dated.encode()
    for position in range(TEXTS):
        for text in ("", "\x1b[31m", "a\0b", "\ud800", b"\xff", "x" * 70_000):
            yield f"text {position} is {text!r:.20}", parts.saying(position, text).encode()
    for texts in (b"", b"\0", b"\0" * 7, b"\0" * 8, b"\0" * 10**5, b"\xfe" * 50):
        yield f"texts are {texts!r:.20}", parts.telling(texts).encode()


def hostile_records(task_id: str, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what is no record of `task_id`, by what is wrong with it."""
    good = Record(task_id=task_id, state=State.SUCCESS, outcome=Payload("json", b"1"))
    encoded = good.encode()
    yield "empty", b""
    yield "one byte", b"\0"
    yield "JSON: null", b"null"
    yield "JSON: a list", b"[1, 2]"
    yield "JSON: a number", b"5"
    yield "JSON: Celery's", b'{"status": "SUCCESS", "result": 1, "task_id": "x"}'
    yield "HTTP", b"HTTP/1.1 200 OK\r\n\r\n"
    yield "text with escapes", b"\x1b[31m\n[2026] FORGED"
    yield "a byte too few", encoded[:-1]
    yield "a byte too many", encoded + b"x"
    yield "half", encoded[: len(encoded) // 2]
    yield "a flipped bit", encoded[:-1] + bytes([encoded[-1] ^ 1])
    yield "another version", parts_of(good).encode(version=b"u9")
    yield "of another task", good._replace(task_id="another").encode()
    yield "of a task with a name like a prefix", good._replace(task_id=task_id + "x").encode()
    yield "of a forbidden id", parts_of(good).saying(0, "a\nb").encode()
    for what, data in _spoilt(good):
        if not _is_record(data, task_id):
            yield what, data
    for name, data in with_canary(canary).items():
        yield f"a pickle: {name}", data


def _is_record(data: bytes, task_id: str) -> bool:
    """Tell whether a change of one field has left a record that anybody may have written."""
    try:
        return Record.decode(data).task_id == task_id
    except Exception:
        return False


def hostile_messages(task_id: str, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what no worker can run, by what is wrong with it; none of it may stop one.

    Args:
        task_id: the task of those that say one.
        canary: a file that is made by whoever obeys.
    """
    good: dict[str, Any] = {"c": "json", "task_id": task_id, "name": "jobs.echo",
                            "queue": "default"}  # fmt: skip
    encoded = Message(
        task_id=task_id, name="jobs.echo", arguments=Payload("json", b"[[1],{}]"), queue="default"
    ).encode()
    yield "empty", b""
    yield "garbage", b"\xff\xfe\x00garbage"
    yield "JSON: a list", b"[1]"
    yield "JSON: Celery's", b'{"task": "os.system", "id": "x", "args": ["true"], "kwargs": {}}'
    yield "cut", encoded[:-3]
    yield "another version", b"m9" + encoded[2:]
    yield "a header that is a list", sealed([1])
    yield "a header that is deep", sealed(b"[" * 100_000)
    for field, value in _ODD_FIELDS:
        yield f"{field} is {value!r:.40}", sealed({**good, field: value})
    yield "a name that forges a line, late", sealed({**good, "name": _FORGED, "expires": 1})
    header = json.dumps({**good, "headers": {"a": 0}}).replace(": 0", ": NaN")
    yield "a header that cannot be sent again", sealed(header.encode())
    for name in ("os.system", "builtins.eval", "subprocess:Popen", "__import__", "jobs.os.system"):
        yield f"the task {name}", sealed({**good, "name": name}, b'[["true"],{}]')
    for what, (kind, data) in VALUE_BOMBS.items():
        yield f"arguments: {what}", sealed({**good, "c": kind}, data)
    for what, data in with_canary(canary).items():
        yield f"arguments: a pickle, {what}", sealed({**good, "c": "pickle"}, data)
        yield f"arguments: a pickle as JSON, {what}", sealed(good, data)
    for arguments in (
        "5", "[]", "[{},[]]", "[[],{},[]]", "[[1,2,3,4,5,6,7,8],{}]", '[[],{"no_such":1}]',
        '{"args":[]}', '[[],{"a":1,"a":2}]',
    ):  # fmt: skip
        yield f"arguments: {arguments}", sealed(good, arguments.encode())


_FORGED: Final = "a\n[2026-01-01 00:00:00,000: INFO/MainProcess] FORGED"
_ODD_FIELDS: Final[tuple[tuple[str, object], ...]] = (
    ("task_id", None), ("task_id", {"$gt": ""}), ("task_id", ""), ("task_id", _FORGED),
    ("task_id", "x" * 10**6), ("name", _FORGED), ("name", "\ud800"), ("name", "x" * 10**6),
    ("name", ["a"]), ("name", "\x1b[31mred"), ("name", ""), ("queue", _FORGED), ("queue", 5),
    ("retry", {_FORGED: 1}), ("retry", [1]), ("eta", 10**300), ("eta", "now"), ("attempt", 2**40),
    ("result_expires", 0), ("time_limit", 10**300), ("headers", {"a": "\ud800"}), ("headers", [1]),
    ("reply_to", _FORGED), ("reply_to", "x" * 10**6), ("c", _FORGED), ("c", None), ("c", "yaml"),
)  # fmt: skip
"""What stands in one field of a header, all else being right."""
