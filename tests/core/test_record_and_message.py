"""Records and messages in bytes: whole and back, and refused when they are anything else."""

from __future__ import annotations

import math
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upshot.errors import CorruptRecordError, DecodeError, InvalidTaskIdError
from upshot.message import Message, RetryPolicy
from upshot.record import Payload, Record, check_task_id, printable
from upshot.states import State
from upshot_conformance.suite.forge import Parts, forged, parts_of

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
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
MESSAGES = st.builds(
    Message,
    task_id=IDS,
    name=NAMES,
    arguments=st.builds(Payload, st.just("json"), st.binary()),
    queue=NAMES,
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
    soft_time_limit=st.none() | st.just(-1.0) | st.floats(0.1, 1e6),
    retry=st.none() | st.builds(RetryPolicy, max_retries=st.none() | st.integers(0, 5)),
    reply_to=st.just("") | NAMES,
)


def encodable(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


def writable(record: Record) -> bool:
    """Tell whether some writer makes such a record."""
    texts = (record.name, record.queue, record.worker, record.token)
    if "\0" in "".join(texts):
        return False
    is_whole = record.state not in (State.SUCCESS, State.FAILURE) or record.outcome is not None
    return is_whole and all(map(encodable, texts))


@given(RECORDS.filter(writable))
def test_a_record_comes_back_equal(record: Record) -> None:
    assert Record.decode(record.encode()) == record


@given(RECORDS.filter(writable).map(Record.encode), st.data())
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
    checksum = zlib.crc32(header, len(header))
    with pytest.raises(CorruptRecordError):
        Record.decode(forged(header))
    with pytest.raises(DecodeError):
        Message.decode(struct.pack("!2sII", b"m1", checksum, len(header)) + header)


WHOLE = Record(
    *("a", State.STARTED, 2, "n", "q", "w", "t", 1.5, 2.5, None),
    info=Payload("json", b"{}"),
)
TORN: dict[str, Parts] = {
    "a kind that there is not": parts_of(WHOLE)._replace(kind=0b111),
    "a moment too few": parts_of(WHOLE)._replace(moments=(1.5,)),
    "a moment too many": parts_of(WHOLE)._replace(moments=(1.5, 2.5, 3.5)),
    "no attempt": parts_of(WHOLE)._replace(attempt=0),
    "an attempt too high": parts_of(WHOLE)._replace(attempt=2**26 + 1),
    "texts that end early": parts_of(WHOLE)._replace(texts_length=3),
    "texts that do not end": parts_of(WHOLE)._replace(texts_length=2**32 - 1),
    "a text more": parts_of(WHOLE).telling(parts_of(WHOLE).texts + b"\0"),
    "a text less": parts_of(WHOLE).telling(parts_of(WHOLE).texts[:-1]),
    "texts that are no UTF-8": parts_of(WHOLE).saying(3, b"\xff"),
    "half a surrogate pair": parts_of(WHOLE).saying(1, "\ud800"),
    "an info that does not end": parts_of(WHOLE)._replace(info_length=3),
    "an info that it has not": parts_of(WHOLE._replace(info=None))._replace(info_length=2),
    "an outcome that it has not": parts_of(WHOLE)._replace(payloads=b"{}1"),
    "a state twice": parts_of(WHOLE).saying(7, "SUCCESS"),
    "an end by another name": parts_of(WHOLE)._replace(kind=0).saying(7, "SUCCESS"),
}


@pytest.mark.parametrize("parts", TORN.values(), ids=TORN.keys())
def test_a_well_signed_record_that_is_not_whole_is_refused(parts: Parts) -> None:
    with pytest.raises(CorruptRecordError):
        Record.decode(parts.encode())


def test_the_parts_of_a_record_make_it_again() -> None:
    assert parts_of(WHOLE).encode() == WHOLE.encode()


@pytest.mark.parametrize("field", ["task_id", "state", "name", "queue", "worker", "token"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_could_not_be_read_back_is_not_written(field: str, text: str) -> None:
    record = Record(task_id="a", state="CUSTOM")._replace(**{field: text})  # type: ignore[arg-type]  # one field of many types

    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        record.encode()


@pytest.mark.parametrize("attempt", [-1, 2**32])
def test_a_number_that_could_not_be_read_back_is_not_written(attempt: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Record(task_id="a", state=State.QUEUED, attempt=attempt).encode()


@given(MESSAGES.filter(lambda m: all(map(encodable, (m.name, m.queue, m.reply_to, *m.headers)))))
def test_a_message_comes_back_equal(message: Message) -> None:
    assert Message.decode(message.encode()) == message


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILURE])
def test_an_end_without_an_outcome_is_no_record(state: State) -> None:
    with pytest.raises(CorruptRecordError, match="without an outcome"):
        Record.decode(Record(task_id="a", state=state).encode())


@pytest.mark.parametrize("moment", [1e300, math.inf, -math.inf, math.nan, -1e15, 3e11])
@pytest.mark.parametrize("field", ["queued_at", "started_at", "finished_at"])
def test_a_moment_that_no_calendar_has_is_refused(field: str, moment: float) -> None:
    record = Record(task_id="a", state=State.QUEUED)._replace(**{field: moment})  # type: ignore[arg-type]  # one field of many types

    with pytest.raises(CorruptRecordError, match="in no calendar"):
        Record.decode(record.encode())


def test_a_moment_that_is_no_number_of_a_record_is_not_written() -> None:
    with pytest.raises(ValueError, match="out of range"):
        Record(task_id="a", state=State.QUEUED, queued_at=10**400).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"attempt": 2**40},
        {"priority": 10},
        {"task_id": "a\nb"},
        {"name": ""},
        {"name": "a\nERROR forged"},
        {"name": "\x1b]0;title\x07"},
        {"name": "\u202eabc"},
        {"name": "x" * 256},
        {"queue": "a\rb"},
        {"queue": "x" * 10**6},
        {"reply_to": "a\0b"},
        {"retries": -1},
        {"retries": 2**40},
        {"eta": 1e300},
        {"eta": 10**400},
        {"expires": -(10**400)},
        {"queued_at": 1e300},
        {"result_expires": 0},
        {"result_expires": -5.0},
        {"result_expires": 1e300},
        {"time_limit": 10**400},
        {"time_limit": 0.0},
        {"soft_time_limit": 1e10},
    ],
)
def test_a_message_with_an_impossible_field_is_refused(change: dict[str, object]) -> None:
    good = Message(task_id="a", name="n", arguments=Payload("json", b""), queue="q")
    bad = good._replace(**change)  # type: ignore[arg-type]  # one field of many types

    with pytest.raises(DecodeError) as told:
        Message.decode(bad.encode())
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 500


HEADERS = [
    b'"eta":NaN',
    b'"eta":Infinity',
    b'"eta":1e400',
    b'"headers":{"a":NaN}',
    b'"headers":{"a":1e400}',
    rb'"headers":{"a":"\ud800"}',
    rb'"headers":{"\udfff":1}',
    b'"headers":' + b"[" * 100_000,
    b'"headers":{"a":' + b"9" * 100_000 + b"}",
    b'"retry":5',
    b'"retry":{"a\\nERROR forged":1}',
    b'"retry":{"backoff":1e300}',
    b'"retry":{"max_retries":-1}',
    b'"retry":{"jitter":{},"backoff":"1"}',
    rb'"retry":{"jitter":"\ud800"}',
    b'"priority":true',
    b'"task_id":["a"]',
]


@pytest.mark.parametrize("more", HEADERS, ids=lambda more: more[:30].decode())
def test_a_message_that_could_not_be_sent_again_is_refused(more: bytes) -> None:
    header = b'{"c":"json","task_id":"a","name":"n","queue":"q",' + more + b"}"
    sealed = struct.pack("!2sII", b"m1", zlib.crc32(header, len(header)), len(header)) + header

    with pytest.raises(DecodeError) as told:
        Message.decode(sealed)
    assert str(told.value).isprintable()


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
