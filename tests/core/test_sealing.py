"""Sealing: which records and messages are refused, and which come back as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_record_and_message import MESSAGES, RECORDS

from upshot.envelope import Envelopes
from upshot.errors import (
    CorruptRecordError,
    DecodeError,
    KeyMissingError,
    TamperedMessageError,
    TamperedRecordError,
    UpshotError,
)
from upshot.items import item
from upshot.keyring import Keyring
from upshot.keys import Keyspace
from upshot.message import Message
from upshot.record import Payload, Record
from upshot.sealing import Sealing, open_message, seal_message, stripped
from upshot.serializers import Codecs, JsonSerializer
from upshot.states import State
from upshot.url import Url

KEY, NEXT = f"a:{'0a' * 32}", f"b:{'0b' * 32}"
SECRET = b'"what nobody else may read"'
CODECS = Codecs({"json": JsonSerializer()})


def sealing(
    signing: tuple[str, ...] = (),
    encryption: tuple[str, ...] = (),
    *,
    namespace: str = "shop",
    accept_unsealed: bool = False,
    compression: str | None = None,
) -> Sealing:
    return Sealing(
        namespace=namespace,
        keyring=Keyring(signing, encryption),
        accept_unsealed=accept_unsealed,
        compression=compression,
    )


SIGNING = sealing((KEY,))
ENCRYPTING = sealing((), (KEY,))
BOTH = sealing((KEY,), (NEXT,), compression="gzip")
ALL = [SIGNING, ENCRYPTING, BOTH]

RECORD = Record(
    "some-id", State.SUCCESS, 2, "shop.sell", "default", "w1", "t1", 1.5, 2.5, 3.5,
    Payload("json", b"[1]"), Payload("json", SECRET),
)  # fmt: skip
MESSAGE = Message(
    task_id="some-id", name="shop.sell", queue="fast", arguments=Payload("json", SECRET)
)


def is_whole(record: Record) -> bool:
    texts = (record.name, record.queue, record.worker, record.token)
    ended = record.state in (State.SUCCESS, State.FAILURE)
    return "\0" not in "".join(texts) and not (ended and record.outcome is None)


def sealed(how: Sealing | None, record: Record = RECORD) -> bytes:
    return record.encode() if how is None else how.seal_record(record, most=2**30, expires=None)


def opened(how: Sealing | None, body: bytes, task_id: str = "some-id") -> Record | UpshotError:
    keys = Keyspace("shop", max_bytes=250, text=False)
    envelopes = Envelopes(
        keys, url=Url.parse("memory://here"), expires=None, max_bytes=2**20, sealing=how
    )
    return envelopes.open(keys.key(task_id), body)


def assert_refused(how: Sealing, body: bytes, task_id: str = "some-id") -> None:
    found = opened(how, body, task_id)
    assert isinstance(found, TamperedRecordError), found
    assert found.task_id == task_id


@settings(max_examples=50, deadline=None)
@given(RECORDS.filter(is_whole), st.sampled_from(ALL))
def test_every_record_comes_back(record: Record, how: Sealing) -> None:
    found = how.open_record(sealed(how, record))

    assert found._replace(info=None, outcome=None) == record._replace(info=None, outcome=None)
    assert how is BOTH or found == record


@settings(max_examples=50, deadline=None)
@given(MESSAGES, st.sampled_from([None, *ALL]))
def test_every_message_comes_back(message: Message, how: Sealing | None) -> None:
    assert open_message(seal_message(message, how), message.queue, how) == message


@pytest.mark.parametrize("how", ALL)
def test_no_bit_of_a_sealed_record_can_be_turned(how: Sealing) -> None:
    body = sealed(how)

    for position in range(len(body)):
        turned = bytearray(body)
        turned[position] ^= 1 << position % 8
        found = opened(how, bytes(turned))
        assert isinstance(found, CorruptRecordError), position
        assert isinstance(found, TamperedRecordError) or how is ENCRYPTING, position


@pytest.mark.parametrize("how", [SIGNING, BOTH])
def test_no_bit_of_a_signed_message_can_be_turned(how: Sealing) -> None:
    body = seal_message(MESSAGE, how)

    for position in range(len(body)):
        turned = bytearray(body)
        turned[position] ^= 1 << position % 8
        with pytest.raises(TamperedMessageError):
            open_message(bytes(turned), "fast", how)


EDITS: dict[str, Callable[[Record], Record]] = {
    "state": lambda record: record._replace(state=State.FAILURE),
    "attempt": lambda record: record._replace(attempt=3),
    "id": lambda record: record._replace(task_id="other-id"),
    "payloads swapped": lambda record: record._replace(info=record.outcome, outcome=record.info),
    "outcome in the info": lambda record: record._replace(info=record.outcome),
    "type": lambda record: record._replace(
        outcome=Payload("msgpack;enc=a", record.outcome.body if record.outcome else b"")
    ),
    "in clear": lambda record: record._replace(outcome=Payload("json", b"1")),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_encrypted_outcome_is_bound_to_what_it_is_of(edit: Callable[[Record], Record]) -> None:
    edited = edit(Record.decode(sealed(ENCRYPTING)))

    assert_refused(ENCRYPTING, edited.encode(), edited.task_id)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_signed_record_that_was_edited_is_refused(edit: Callable[[Record], Record]) -> None:
    body = sealed(SIGNING)
    edited = edit(SIGNING.open_record(body))

    assert_refused(SIGNING, body[: -len(RECORD.encode())] + edited.encode(), edited.task_id)
    assert_refused(SIGNING, edited.encode(), edited.task_id)


def test_a_genuine_record_is_refused_under_another_id_or_in_another_namespace() -> None:
    for how in ALL:
        elsewhere = sealing((KEY,), (NEXT,) if how is BOTH else (), namespace="shop2")
        if how is ENCRYPTING:
            elsewhere = sealing((), (KEY,), namespace="shop2")
        found = opened(how, sealed(how), "other-id")
        assert isinstance(
            found, TamperedRecordError if how is not ENCRYPTING else CorruptRecordError
        )
        assert_refused(elsewhere, sealed(how))


def test_what_is_not_sealed_is_refused_where_keys_are_set() -> None:
    for how in ALL:
        assert_refused(how, RECORD.encode())
        with pytest.raises(TamperedMessageError):
            open_message(MESSAGE.encode(), "fast", how)
    assert_refused(BOTH, sealed(SIGNING))
    assert_refused(BOTH, sealed(sealing((), (NEXT,))))
    assert_refused(SIGNING, b"no record at all")


def test_a_record_without_payloads_is_signed_too() -> None:
    revoked = Record("some-id", State.REVOKED)

    assert opened(SIGNING, sealed(SIGNING, revoked)) == revoked
    assert_refused(SIGNING, revoked.encode())


def test_for_a_while_what_is_not_sealed_can_be_accepted() -> None:
    lenient = sealing((KEY,), (NEXT,), accept_unsealed=True)

    assert opened(lenient, RECORD.encode()) == RECORD
    assert opened(lenient, sealed(SIGNING)) == RECORD
    assert opened(lenient, sealed(lenient)) == RECORD
    assert open_message(MESSAGE.encode(), "fast", lenient) == MESSAGE
    turned = bytearray(sealed(SIGNING))
    turned[-1] ^= 1
    assert_refused(lenient, bytes(turned))


def test_a_key_that_was_taken_away_opens_nothing() -> None:
    before, after = sealing((KEY,)), sealing((NEXT,))
    between = sealing((NEXT, KEY))

    assert opened(between, sealed(before)) == RECORD
    assert opened(after, sealed(between)) == RECORD
    assert_refused(after, sealed(before))
    assert open_message(seal_message(MESSAGE, before), "fast", between) == MESSAGE
    with pytest.raises(TamperedMessageError, match=r"does not have \(a\)"):
        open_message(seal_message(MESSAGE, before), "fast", after)


def test_without_the_key_a_state_can_be_read_and_a_value_cannot() -> None:
    other = sealing((KEY,), (KEY,))
    for reader in (other, SIGNING, None):
        found = opened(reader, sealed(BOTH))
        assert isinstance(found, Record)
        assert found._replace(info=None, outcome=None) == RECORD._replace(info=None, outcome=None)
        assert found.outcome is not None
        with pytest.raises(KeyMissingError, match="'b'"):
            CODECS.decode(*found.outcome)


def test_what_one_cannot_read_one_stores_again_as_it_is() -> None:
    found = SIGNING.open_record(sealed(BOTH))
    revoked = found._replace(state=State.REVOKED, outcome=None)

    again = opened(BOTH, sealed(SIGNING, revoked))

    assert isinstance(again, Record)
    assert again.info == RECORD.info


def test_who_has_no_key_reads_what_is_signed() -> None:
    assert opened(None, sealed(SIGNING)) == RECORD
    assert open_message(seal_message(MESSAGE, SIGNING), "fast", None) == MESSAGE
    twice = SIGNING.keyring.sign(sealed(SIGNING), ())
    assert isinstance(opened(None, twice), CorruptRecordError)
    assert stripped(twice) is None
    for body in (b"s1", b"s1\xff", b"s1\0" + bytes(31)):
        assert isinstance(opened(None, body), CorruptRecordError)
        with pytest.raises(DecodeError):
            open_message(body, "fast", None)


def test_a_message_is_refused_from_another_queue() -> None:
    for how in (SIGNING, BOTH):
        with pytest.raises(TamperedMessageError):
            open_message(seal_message(MESSAGE, how), "slow", how)


@pytest.mark.parametrize("how", [ENCRYPTING, BOTH])
def test_nothing_private_is_readable_where_it_is_kept(how: Sealing) -> None:
    assert SECRET not in sealed(how)
    assert SECRET not in seal_message(MESSAGE, how)


@pytest.mark.parametrize(
    "edit",
    [
        {"task_id": "other-id"},
        {"name": "shop.buy"},
        {"arguments": Payload("json", b"[[],{}]")},
    ],
    ids=str,
)
def test_encrypted_arguments_are_bound_to_their_task(edit: dict[str, object]) -> None:
    sent = Message.decode(seal_message(MESSAGE, ENCRYPTING))

    with pytest.raises(TamperedMessageError):
        open_message(sent._replace(**edit).encode(), "fast", ENCRYPTING)  # type: ignore[arg-type]


def test_a_record_and_a_message_do_not_pass_for_each_other() -> None:
    as_record = SIGNING.keyring.sign(RECORD.encode(), (b"upshot message", b"shop", b"fast"))

    assert_refused(SIGNING, as_record)


def test_payloads_are_compressed_from_the_threshold_on() -> None:
    how = Sealing(namespace="shop", keyring=Keyring(), compression="gzip", threshold=100)
    short, long = Payload("json", b"[" + b"1," * 40 + b"1]"), Payload("json", b"1" * 1000)

    found = how.open_record(sealed(how, RECORD._replace(info=short, outcome=long)))

    assert found.info == short
    assert found.outcome is not None
    assert found.outcome.content_type == "json+gzip"
    assert len(found.outcome.body) < 100
    again = how.open_record(sealed(how, found))
    assert again == found, "it was compressed twice"


def test_an_item_of_a_stream_does_not_pass_for_the_outcome_of_its_task() -> None:
    yielded = Record.decode(sealed(ENCRYPTING, item("some-id", 0, Payload("json", SECRET))))
    assert yielded.info == Payload("#item", b"0")

    assert_refused(ENCRYPTING, yielded._replace(info=None).encode())
    assert_refused(ENCRYPTING, yielded._replace(info=Payload("#item", b"first")).encode())
