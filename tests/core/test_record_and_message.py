"""Records and messages in bytes: whole and back, and refused when they are anything else."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upshot.errors import CorruptRecordError, DecodeError, InvalidTaskIdError
from upshot.message import Message, RetryPolicy
from upshot.record import Payload, Record, check_task_id, printable
from upshot.states import State

IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
PAYLOADS = st.none() | st.builds(Payload, st.sampled_from(["json", "msgpack"]), st.binary())
TIMES = st.none() | st.floats(0, 1e11)

RECORDS = st.builds(
    Record,
    task_id=IDS,
    state=st.sampled_from([*State, "CUSTOM"]),
    attempt=st.integers(1, 1000),
    name=st.text(max_size=20),
    queue=st.text(max_size=20),
    worker=st.text(max_size=20),
    token=st.text(max_size=20),
    queued_at=TIMES,
    started_at=TIMES,
    finished_at=TIMES,
    info=PAYLOADS,
    outcome=PAYLOADS,
)
MESSAGES = st.builds(
    Message,
    task_id=IDS,
    name=st.text(min_size=1, max_size=20),
    arguments=st.builds(Payload, st.just("json"), st.binary()),
    queue=st.text(min_size=1, max_size=20),
    priority=st.integers(0, 9),
    eta=TIMES,
    expires=TIMES,
    attempt=st.integers(1, 1000),
    retries=st.integers(0, 10),
    queued_at=TIMES,
    headers=st.dictionaries(st.text(max_size=5), st.integers() | st.none()),
    ignore_result=st.booleans(),
    result_expires=st.none() | st.floats(0.1, 1e6),
    time_limit=st.none() | st.just(-1.0) | st.floats(0.1, 1e6),
    retry=st.none() | st.builds(RetryPolicy, max_retries=st.none() | st.integers(0, 5)),
    reply_to=st.text(max_size=10),
)


def encodable(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


@given(RECORDS.filter(lambda r: all(map(encodable, (r.name, r.queue, r.worker, r.token)))))
def test_a_record_comes_back_equal(record: Record) -> None:
    assert Record.decode(record.encode()) == record


@given(RECORDS.map(Record.encode), st.data())
def test_a_damaged_record_is_noticed(data: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    flipped = bytearray(data)
    flipped[position] ^= 1 << draw.draw(st.integers(0, 7))

    for damaged in (bytes(flipped), data[:position], data + b"x"):
        with pytest.raises(CorruptRecordError):
            Record.decode(damaged)


@given(st.binary(max_size=200))
def test_whatever_bytes_are_no_record_and_no_message(data: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        Record.decode(data)
    with pytest.raises(DecodeError):
        Message.decode(data)


@pytest.mark.parametrize(
    "header",
    [b"null", b"5", b"[]", b"{}", b"[1,2]", b'["a"]' * 2, b"[" * 100_000, b'"x"', b"\xff\xfe"],
)
def test_a_well_signed_header_of_the_wrong_shape_is_refused(header: bytes) -> None:
    def sealed(version: bytes) -> bytes:
        return struct.pack("!2sII", version, zlib.crc32(header, len(header)), len(header)) + header

    with pytest.raises(CorruptRecordError):
        Record.decode(sealed(b"u1"))
    with pytest.raises(DecodeError):
        Message.decode(sealed(b"m1"))


@given(MESSAGES.filter(lambda m: all(map(encodable, (m.name, m.queue, m.reply_to, *m.headers)))))
def test_a_message_comes_back_equal(message: Message) -> None:
    assert Message.decode(message.encode()) == message


@pytest.mark.parametrize(
    "change",
    [{"attempt": 0}, {"attempt": 2**40}, {"priority": 10}, {"task_id": "a\nb"}, {"name": ""}],
)
def test_a_message_with_an_impossible_field_is_refused(change: dict[str, object]) -> None:
    good = Message(task_id="a", name="n", arguments=Payload("json", b""), queue="q")
    bad = replace(good, **change)  # type: ignore[arg-type]  # one field of many types

    with pytest.raises(DecodeError):
        Message.decode(bad.encode())


@pytest.mark.parametrize(
    "bad",
    ["", "x" * 256, "é" * 128, "a\x00b", "a\r\nb", "\x7f", "\x85", "\ud800", None, 5, b"x", {}],
)
def test_what_cannot_name_a_task_is_refused(bad: object) -> None:
    with pytest.raises(InvalidTaskIdError):
        check_task_id(bad)


@pytest.mark.parametrize("good", ["a", "x" * 255, "é" * 127, "a b", " ", "日本", "a:b*?[$.%00/../"])
def test_everything_else_may_name_a_task(good: str) -> None:
    assert check_task_id(good) == good


def test_printable_text_forges_no_line_and_drives_no_terminal() -> None:
    shown = printable("a\nERROR forged\x1b[31m\u202e")

    assert shown.isprintable()
    assert "\\n" in shown
