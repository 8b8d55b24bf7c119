"""Records as lines of text, and from one service to another."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upshot import archive, clock
from upshot.archive import from_line, longest_line, to_line
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.errors import (
    ConfigError,
    DecodeError,
    PayloadTooLargeError,
    UnsupportedError,
    UpshotError,
)
from upshot.keyring import Keyring, new_key
from upshot.offload import Offload
from upshot.record import Payload, Record
from upshot.sealing import Sealing
from upshot.states import State
from upshot.url import Url
from upshot_backends.memory.results import MemoryBackend
from upshot_conformance.records import success

Open = Callable[..., ResultClient]

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_MOMENT = st.none() | st.floats(clock.EARLIEST, clock.LATEST)
_PAYLOAD = st.builds(Payload, _TEXT, st.binary(max_size=50))


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any record that a service could hold."""
    state = draw(st.sampled_from([*State, "CUSTOM", "ü"]).filter(lambda one: one != "PENDING"))
    has_outcome = state in (State.SUCCESS, State.FAILURE)
    return Record(
        task_id=draw(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9)
        ),
        state=str(state),
        attempt=draw(st.integers(1, 2**26)),
        name=draw(_TEXT),
        queue=draw(_TEXT),
        worker=draw(_TEXT),
        token=draw(_TEXT),
        queued_at=draw(_MOMENT),
        started_at=draw(_MOMENT),
        finished_at=draw(_MOMENT),
        info=draw(st.none() | _PAYLOAD),
        outcome=draw(_PAYLOAD if has_outcome else st.none()),
    )


@pytest.fixture
def open_client() -> Iterator[Open]:
    """Opens clients in memory, each in a place of its own unless named."""
    opened: list[ResultClient] = []

    def made(place: str = "", **options: Any) -> ResultClient:
        url = Url.parse(f"memory://{place or uuid.uuid4().hex}")
        opened.append(ResultClient(lambda: MemoryBackend(url), url=url, **options))
        return opened[-1]

    yield made
    for client in opened:
        client.close()


def line(**changes: Any) -> str:
    """The line of a record, with some fields replaced; `...` removes one."""
    data = json.loads(to_line(success("it", 1))) | changes
    return json.dumps({name: value for name, value in data.items() if value is not ...})


# -- lines ------------------------------------------------------------------------------------


@given(records())
def test_a_line_brings_the_same_bytes_home(record: Record) -> None:
    written = to_line(record)

    assert from_line(written).encode() == record.encode()
    assert from_line(written.encode()).encode() == record.encode()


@given(records())
def test_a_line_is_printable_ascii_and_one_line(record: Record) -> None:
    written = to_line(record)

    assert written.isascii()
    assert written.isprintable()
    assert len(written) <= longest_line(len(record.encode()))


def test_a_payload_of_text_can_be_read_and_one_of_bytes_is_base64() -> None:
    text = success("it", "ä")
    other = text._replace(outcome=Payload("pickle", b"\x80\xff"))

    assert json.loads(to_line(text))["outcome"]["text"] == '"ä"'
    assert json.loads(to_line(other))["outcome"] == {"content_type": "pickle", "base64": "gP8="}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "upshot_record"),
        (b"\xff\xfe{", "no JSON"),
        (line(upshot_record=2), "version"),
        (line(upshot_record=True), "version"),
        (line(queue=...), "'queue' is missing"),
        (line(extra=1), "'extra'"),
        (line(id=""), "at least one character"),
        (line(id="a\nb"), "control characters"),
        (line(id=7), "text"),
        (line(state="PENDING"), "PENDING"),
        (line(state=""), "state of no record"),
        (line(state=None), "'state'"),
        (line(attempt=0), "attempt"),
        (line(attempt=True), "'attempt' is of type bool"),
        (line(attempt=2**40), "out of range"),
        (line(name="a\0b"), "NUL"),
        (line(name="\ud800"), "surrogates"),
        (line(finished_at="2026-01-01"), "'finished_at' is no number"),
        (line(finished_at=1e300), "calendar"),
        (line(finished_at=10**400), "too large"),
        (line(outcome=None), "without an outcome"),
        (line(outcome=[]), "'outcome' is no payload"),
        (line(outcome={"content_type": "json"}), "content_type with"),
        (line(outcome={"content_type": "json", "base64": "€"}), "ASCII"),
        (line(outcome={"content_type": "json", "base64": "A"}), ""),
        (line(outcome={"content_type": "json", "text": "1", "base64": ""}), "content_type with"),
        (line(outcome={"content_type": 1, "text": "1"}), "content_type with"),
        (line(outcome={"content_type": "j\0n", "text": "1"}), "NUL"),
        (line(outcome={"content_type": "task id", "text": "x"}), "no record of a task"),
        (line(info={"content_type": "#item", "text": "0"}), "no record of a task"),
        ('{"upshot_record": NaN}', "NaN"),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(wrong: str | bytes, why: str) -> None:
    with pytest.raises(DecodeError) as raised:
        from_line(wrong)

    assert why in str(raised.value)
    assert len(str(raised.value)) < 300


# -- into a service ---------------------------------------------------------------------------


def test_restoring_again_stores_nothing_again(open_client: Open) -> None:
    client = open_client()
    lines = [to_line(success(f"task-{number}", number)) for number in range(2500)]

    first, second = archive.restore(client, lines), archive.restore(client, lines)

    assert (first.stored, first.present, first.total) == (2500, 0, 2500)
    assert (second.stored, second.present, second.total) == (0, 2500, 2500)
    assert sorted(map(to_line, client.scan())) == sorted(lines)


def test_what_is_there_stays_unless_it_is_of_an_earlier_time(open_client: Open) -> None:
    client = open_client()
    mine, theirs = success("ended", "mine"), success("ended", "theirs")
    begun = Record(task_id="runs", state=State.STARTED, started_at=1.0)
    client.store_many([mine, begun])

    done = archive.restore(client, [to_line(theirs), to_line(success("runs", 1))])

    assert (done.stored, done.kept, done.refused) == (1, 1, 0)
    assert client.load("ended") == mine
    assert (found := client.load("runs")) is not None
    assert found.state == State.SUCCESS


def test_two_lines_of_one_task_end_in_the_later_one(open_client: Open) -> None:
    client, late = open_client(), success("it", 1)
    early = Record(task_id="it", state=State.QUEUED)

    done = archive.restore(client, map(to_line, [late, early, late]))

    assert client.load("it") == late
    assert done.total == 3


def test_a_wrong_line_ends_it_with_its_number_after_what_stands_before(open_client: Open) -> None:
    client = open_client()
    lines = [to_line(success("a", 1)), "", "nonsense", to_line(success("b", 1))]

    with pytest.raises(DecodeError, match=r"^line 3: it is no JSON"):
        archive.restore(client, lines)

    assert [record.task_id for record in client.scan()] == ["a"]


def test_wrong_lines_can_be_passed_over(open_client: Open) -> None:
    client, refused = open_client(), list[int]()
    lines: list[str | bytes] = [
        "x",
        to_line(success("a", 1)),
        b"\xff",
        to_line(success("b", 1)),
    ]

    done = archive.restore(
        client, lines, keep_going=True, refused=lambda number, _: refused.append(number)
    )

    assert (done.stored, done.refused, refused) == (2, 2, [1, 3])


def test_a_record_that_the_service_does_not_take_has_the_number_of_its_line(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(MemoryBackend.capabilities, max_record_bytes=200)
    monkeypatch.setattr(MemoryBackend, "capabilities", limited)
    client = open_client()
    lines = [to_line(success("a", 1)), to_line(success("b", "x" * 300))]

    with pytest.raises(PayloadTooLargeError, match=r"^line 2: .*'b'.* 200"):
        archive.restore(client, lines)

    assert archive.restore(client, lines, keep_going=True).refused == 1
    assert client.load("a") is not None


@pytest.mark.parametrize(
    ("expires", "outcome", "other"), [(60.0, 60.0, 2_592_000.0), (None, None, None)]
)
def test_expiry_counts_anew(
    open_client: Open,
    monkeypatch: pytest.MonkeyPatch,
    expires: float | None,
    outcome: float | None,
    other: float | None,
) -> None:
    client = open_client()
    kept: dict[str, float | None] = {}
    store = MemoryBackend.store

    def noting(
        self: MemoryBackend, batch: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        kept.update({each.task_id: each.expires for each in batch})
        return store(self, batch, timeout)

    monkeypatch.setattr(MemoryBackend, "store", noting)
    records = (
        success("ended", 1),
        Record(task_id="revoked", state=State.REVOKED),
        Record(task_id="runs", state=State.STARTED),
    )
    archive.restore(client, map(to_line, records), expires=expires)

    assert kept == {"ended": outcome, "revoked": other, "runs": other}


# -- from one service into another ------------------------------------------------------------


def test_a_migration_copies_all_and_proves_it(open_client: Open) -> None:
    source, target = open_client(), open_client()
    source.store_many(success(f"task-{number}", number) for number in range(2500))
    source.store(Record(task_id="runs", state=State.STARTED))

    done = archive.migrate(source, target)

    assert done.is_complete
    assert (done.copied.stored, done.verified, done.unfinished) == (2501, 2501, 1)
    assert sorted(target.scan()) == sorted(source.scan())


def test_a_migration_that_was_interrupted_is_done_again(open_client: Open) -> None:
    source, target = open_client(), open_client()
    source.store_many(success(f"task-{number}", number) for number in range(2500))

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.migrate(source, target, progress=interrupt)
    done = archive.migrate(source, target)

    assert (done.copied.stored, done.copied.present, done.verified) == (1500, 1000, 2500)


def test_what_the_target_holds_is_never_overwritten(open_client: Open) -> None:
    source, target = open_client(), open_client()
    source.store_many([success("same", 1), success("it", "old")])
    source.store(Record(task_id="runs", state=State.QUEUED))
    target.store_many([success("it", "new"), success("runs", 1)])
    troubles: dict[str, str] = {}

    done = archive.migrate(source, target, trouble=troubles.__setitem__)

    assert not done.is_complete
    assert (done.copied.kept, done.verified, done.ahead, done.different) == (2, 1, 1, 1)
    assert troubles == {"it": "another one is there, which is SUCCESS"}


def test_what_gets_lost_on_the_way_is_found_out(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = open_client(), open_client()
    source.store_many([success("kept", 1), success("lost", 1)])
    store = MemoryBackend.store

    def losing(
        self: MemoryBackend, batch: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        return [each.task_id == "lost" or store(self, [each], timeout)[0] for each in batch]

    monkeypatch.setattr(MemoryBackend, "store", losing)

    done = archive.migrate(source, target)

    assert not done.is_complete
    assert (done.copied.stored, done.verified, done.missing) == (2, 1, 1)


def test_a_record_that_cannot_be_read_is_counted_and_named(open_client: Open) -> None:
    source, target = open_client(), open_client()
    sealed = [source.encode(success(name, 1)) for name in ("good", "bad")]
    source.store_encoded([sealed[0], sealed[1]._replace(body=b"rubbish")])
    troubles: dict[str, str] = {}

    done = archive.migrate(source, target, trouble=troubles.__setitem__)

    assert not done.is_complete
    assert (done.verified, done.unreadable) == (1, 1)
    assert list(troubles) == ["bad"]


def test_what_the_target_would_compress_or_put_elsewhere_is_moved_as_it_is(
    open_client: Open, tmp_path: Path
) -> None:
    keyring = Keyring([new_key("a")])
    place = Offload(f"file://{tmp_path}", namespace="upshot", keyring=keyring, threshold=10)
    how = Sealing(
        namespace="upshot", keyring=keyring, compression="gzip", threshold=10, offload=place
    )
    source, target = open_client(), open_client(sealing=how)
    source.store(success("it", "a" * 1000))

    first, second = (archive.migrate(source, target) for _ in range(2))

    assert (first.is_complete, first.verified, first.copied.stored) == (True, 1, 1)
    assert (second.is_complete, second.verified, second.copied.present) == (True, 1, 1)
    assert target.load("it") == source.load("it")


def test_few_records_are_held_that_are_long(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = open_client(), open_client()
    large = Payload("json", b"1" * 2**20)
    for number in range(40):
        source.store(success(f"it{number}", 1)._replace(outcome=large))
    store, stored = MemoryBackend.store, list[int]()

    def measured(
        backend: MemoryBackend, offered: Sequence[StoredRecord], timeout: float
    ) -> Sequence[bool]:
        stored.append(sum(len(each.body) for each in offered))
        return store(backend, offered, timeout)

    monkeypatch.setattr(MemoryBackend, "store", measured)

    assert archive.migrate(source, target).verified == 40
    again = archive.restore(open_client(), map(to_line, source.scan()))
    assert (again.stored, max(stored) <= 33 * 2**20) == (40, True)


def test_one_place_is_not_moved_into_itself(open_client: Open) -> None:
    with pytest.raises(ConfigError, match="one place"):
        archive.migrate(open_client("x"), open_client("x"))


def test_a_carrier_is_no_place_to_keep_records(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_client()
    monkeypatch.setattr(client.backend, "reply_to", "somewhere", raising=False)

    with pytest.raises(UnsupportedError, match="carries results"):
        archive.restore(client, [])


def test_the_errors_of_lines_are_upshots_own() -> None:
    with pytest.raises(UpshotError):
        from_line("null")
