"""Sealing: what was changed is refused, what is private is not readable, what is large fits.

The core does all of it above the backend, so what a backend has to do is to bring every byte back
as it was. That it does, and that each way to read a record goes through the seal, is seen here.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from upshot.backend import Capabilities, StoredRecord
from upshot.client import ResultClient
from upshot.errors import (
    CorruptRecordError,
    DecodeError,
    KeyMissingError,
    PayloadMissingError,
    PayloadTooLargeError,
    TamperedRecordError,
)
from upshot.keyring import Keyring
from upshot.offload import Offload
from upshot.origin import Origin
from upshot.outcome import decode_value, encode_value
from upshot.record import Payload, Record
from upshot.result import AsyncResult
from upshot.sealing import Sealing
from upshot.serializers import Codecs, JsonSerializer
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.records import (
    CODECS,
    failure,
    new_id,
    revoked,
    streamed,
    success,
    unfinished,
    value_of,
    yielded,
)
from upshot_conformance.suite.expect import loaded
from upshot_conformance.suite.forge import inject, inject_many, peak_of
from upshot_conformance.timing import Timing

MIB: Final = 2**20
KEY, OTHER = f"2026-11:{'0a' * 32}", f"2026-12:{'0b' * 32}"
SECRET: Final = "what-nobody-else-may-read"
_PATIENCE: Final = 10.0  # seconds that the service has to answer


def sealing(namespace: str, *, signing: tuple[str, ...] = (KEY,), **how: Any) -> Sealing:
    encryption = how.pop("encryption", ())
    return Sealing(namespace=namespace, keyring=Keyring(signing, encryption), **how)


def sealed(client: ResultClient, record: Record) -> bytes:
    return client.encode(record).body


def forgeries(client: ResultClient, namespace: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield what stands in the place of a signed record: a name, an id, and bytes."""

    def each(edit: Callable[[Record], bytes]) -> tuple[str, bytes]:
        record = failure(new_id(), ValueError(1))
        return record.task_id, edit(record)

    genuine = len(sealed(client, revoked("x"))) - len(revoked("x").encode())
    value = encode_value(CODECS, "forged")

    def with_the_old_signature(record: Record, **changes: Any) -> bytes:
        return sealed(client, record)[:genuine] + record._replace(**changes).encode()

    yield "in clear", *each(Record.encode)
    yield (
        "a failure made a success",
        *each(lambda r: with_the_old_signature(r, state=State.SUCCESS, outcome=value)),
    )
    yield "of a later attempt", *each(lambda r: with_the_old_signature(r, attempt=2))
    yield "of another name", *each(lambda r: with_the_old_signature(r, name="shop.buy"))
    yield "of another id", *each(lambda r: sealed(client, r._replace(task_id=new_id())))
    for name, space, keys in (
        ("of another namespace", f"{namespace}-x", (KEY,)),
        ("with an unknown key", namespace, (OTHER,)),
        ("with another key of that name", namespace, (f"2026-11:{'0c' * 32}",)),
    ):
        other = sealing(space, signing=keys)
        yield name, *each(partial(other.seal_record, most=2**30, expires=None))
    yield "cut short", *each(lambda r: sealed(client, r)[:-1])
    yield "cut in its signature", *each(lambda r: sealed(client, r)[:20])
    yield "with a byte more", *each(lambda r: sealed(client, r) + b"\0")
    yield "no record", *each(lambda r: b"no record")


@clause("SE-4")
def test_a_forged_record_is_refused_on_every_way_to_read_it(
    clients: Clients,
    handle: MakeHandle,
    namespace: str,
    timing: Timing,
) -> None:
    client = clients.open(sealing=sealing(namespace))
    honest = success(new_id(), SECRET)
    client.store(honest)

    ways: tuple[Callable[[str], Any], ...] = (
        client.load,
        lambda asked: client.wait(asked, timeout=timing.within),
        lambda asked: next(client.wait_many([asked], timeout=timing.within))[1],
        lambda asked: client.load_many([honest.task_id, asked])[1],
        lambda asked: handle(asked, client).get(timeout=timing.within),
        lambda asked: handle(asked, client).state,
    )
    for name, task_id, body in forgeries(client, namespace):
        inject(client, task_id, body)
        for read in ways:
            try:
                found: Any = read(task_id)
            except CorruptRecordError as exc:
                found = exc
            assert isinstance(found, TamperedRecordError), f"a record {name} gave {found!r}"
            assert found.task_id == task_id
        client.forget([task_id])

    assert loaded(client, honest.task_id) == honest


@clause("SE-4")
def test_no_byte_of_a_signed_record_can_be_changed(clients: Clients, namespace: str) -> None:
    client = clients.open(sealing=sealing(namespace))
    size = len(sealed(client, success("0" * 36, SECRET)))
    bodies: dict[str, bytes] = {}
    for position in range(size):
        record = success(new_id(), SECRET)
        turned = bytearray(sealed(client, record))
        turned[position] ^= 1 << position % 8
        bodies[record.task_id] = bytes(turned)

    inject_many(client, bodies)

    found = client.load_many(bodies)
    assert {type(each) for each in found} == {TamperedRecordError}


@clause("SE-4")
def test_records_that_were_signed_come_back_and_keys_can_be_changed(
    clients: Clients, namespace: str, timing: Timing
) -> None:
    before = clients.open(sealing=sealing(namespace))
    between = clients.open(sealing=sealing(namespace, signing=(OTHER, KEY)))
    after = clients.open(sealing=sealing(namespace, signing=(OTHER,)))
    first, second = success(new_id(), SECRET), failure(new_id(), ValueError(SECRET))

    assert before.store(first)
    assert between.store(second)

    assert between.load_many([first.task_id, second.task_id]) == [first, second]
    assert after.wait(second.task_id, timeout=timing.within) == second
    with pytest.raises(TamperedRecordError):
        after.load(first.task_id)


@clause("SE-4")
def test_a_signed_record_keeps_its_place_in_the_life_of_a_task(
    clients: Clients, namespace: str, capabilities: Capabilities
) -> None:
    client = clients.open(sealing=sealing(namespace))
    task_id = new_id()

    if capabilities.intermediate:
        assert client.store(unfinished(task_id))
        assert loaded(client, task_id).state == State.STARTED
    assert client.store(success(task_id, 1))
    assert not client.store(unfinished(task_id))
    assert not client.store(failure(task_id, ValueError()))

    assert value_of(loaded(client, task_id)) == 1


@clause("SE-5")
def test_nothing_private_is_in_the_service(clients: Clients, namespace: str) -> None:
    client = clients.open(sealing=sealing(namespace, signing=(), encryption=(KEY,)))
    told = encode_value(CODECS, {"seen": SECRET})
    records = [
        success(new_id(), SECRET)._replace(info=told),
        failure(new_id(), ValueError(SECRET)),
        success(new_id(), [SECRET] * 100),
    ]

    client.store_many(records)

    stored = client.backend.load([client.encode(each).key for each in records], _PATIENCE)
    assert not [body for body in stored if not body or SECRET.encode() in bytes(body)]  # type: ignore[arg-type]
    assert client.load_many([each.task_id for each in records]) == records


@clause("SE-5")
@pytest.mark.parametrize("signing", [(), (KEY,)], ids=["encrypted", "signed too"])
def test_an_encrypted_payload_is_good_for_its_own_record_alone(
    clients: Clients, namespace: str, signing: tuple[str, ...]
) -> None:
    how = sealing(namespace, signing=signing, encryption=(KEY,))
    client, bare = clients.open(sealing=how), clients.open()
    told = encode_value(CODECS, {"seen": 1})

    def edited(name: str, edit: Callable[[Record], Record]) -> None:
        record = success(new_id(), SECRET)._replace(info=told)
        inside = Record.decode(sealing(namespace, signing=(), encryption=(KEY,)).seal_record(
            record, most=2**30, expires=None
        ))  # fmt: skip
        task_id = new_id() if name == "moved" else record.task_id
        inject(bare, task_id, edit(inside._replace(task_id=task_id)).encode())
        with pytest.raises(TamperedRecordError):
            client.load(task_id)

    edited("moved", lambda r: r)
    edited("state", lambda r: r._replace(state=State.FAILURE))
    edited("attempt", lambda r: r._replace(attempt=2))
    edited("swapped", lambda r: r._replace(info=r.outcome, outcome=r.info))
    edited("in clear", lambda r: r._replace(outcome=encode_value(CODECS, "forged")))
    edited("info in clear", lambda r: r._replace(info=encode_value(CODECS, {"forged": 1})))
    edited("changed", lambda r: r._replace(outcome=_turned(r.outcome)))


def _turned(payload: Payload | None) -> Payload:
    assert payload is not None
    return payload._replace(body=payload.body[:-1] + bytes([payload.body[-1] ^ 1]))


@clause("SE-5")
def test_without_the_key_a_state_can_be_read_and_a_value_cannot(
    clients: Clients, handle: MakeHandle, namespace: str, timing: Timing
) -> None:
    writer = clients.open(sealing=sealing(namespace, encryption=(KEY,)))
    reader = clients.open(sealing=sealing(namespace, encryption=(OTHER,)))
    value, failed = success(new_id(), SECRET), failure(new_id(), ValueError(SECRET))
    writer.store_many([value, failed])

    for client in (reader, clients.open()):
        assert loaded(client, value.task_id).state == State.SUCCESS
        for record in (value, failed):
            with pytest.raises(KeyMissingError):
                handle(record.task_id, client).get(timeout=timing.within)


@clause("SE-5")
@pytest.mark.needs("streams")
def test_an_encrypted_item_is_good_for_its_own_index_alone(
    clients: Clients, handle: MakeHandle, namespace: str, timing: Timing
) -> None:
    client = clients.open(sealing=sealing(namespace, signing=(), encryption=(KEY,)))
    task_id, values = new_id(), ["first", "second"]
    first, second = yielded(client, task_id, values)

    def as_first(body: bytes) -> StoredRecord:
        """Return what somebody would store who has the second item, and wants it to be first."""
        info = Record.decode(first.body).info
        return first._replace(body=Record.decode(body)._replace(info=info).encode())

    client.store_encoded([as_first(second.body), second])
    client.store(streamed(success(task_id, None), len(values)))

    assert not [each for each in (first, second) if any(v.encode() in each.body for v in values)]
    with pytest.raises(TamperedRecordError):
        list(handle(task_id, client).stream(timeout=timing.within))
    assert list(handle(task_id, client).stream(1, timeout=timing.within)) == values[1:]
    with pytest.raises(KeyMissingError):  # and nothing else: nobody has changed it
        list(handle(task_id, clients.open()).stream(1, timeout=timing.within))


@clause("SE-6")
def test_compressed_values_come_back_and_take_less_room(
    clients: Clients, namespace: str, timing: Timing
) -> None:
    client = clients.open(
        sealing=sealing(namespace, signing=(), compression="gzip", threshold=1000)
    )
    value = [{"name": "some item", "count": number} for number in range(500)]
    record = success(new_id(), value)

    client.store(record)

    assert len(sealed(client, record)) < len(record.encode()) / 4
    for reader in (client, clients.open()):  # who reads needs no setting
        assert value_of(reader.wait(record.task_id, timeout=timing.within)) == value


@clause("SE-6")
def test_what_unfolds_to_more_than_is_allowed_is_refused(
    client: ResultClient, handle: MakeHandle
) -> None:
    bomb = gzip.compress(b'"' + b"x" * 48 * MIB + b'"')
    for state in (State.SUCCESS, State.FAILURE):
        record = success(new_id(), None)._replace(state=state, outcome=Payload("json+gzip", bomb))
        client.store(record)
        codecs = Codecs({"json": JsonSerializer()}, max_bytes=MIB)
        asked: AsyncResult[Any] = AsyncResult(record.task_id, Origin(client, codecs))

        def read(asked: AsyncResult[Any] = asked) -> None:
            with pytest.raises(PayloadTooLargeError):
                asked.get(timeout=0)

        assert peak_of(read) < 16 * MIB, "bytes that reading it took"
        assert asked.state == state


@clause("RS-8")
def test_a_value_that_no_record_takes_is_kept_elsewhere(
    clients: Clients, namespace: str, capabilities: Capabilities, tmp_path: Path, timing: Timing
) -> None:
    how, codecs = offloading(namespace, tmp_path)
    client, reader = clients.open(sealing=how), clients.open(sealing=how)
    client.backend.capabilities = replace(capabilities, max_record_bytes=2**16)
    value = "x" * 2**17
    record, small = success(new_id(), value), success(new_id(), "small")

    narrow = clients.open()
    narrow.backend.capabilities = client.backend.capabilities
    with pytest.raises(PayloadTooLargeError):
        narrow.store(record)
    client.store_many([record, small])

    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    found = reader.wait(record.task_id, timeout=timing.within)
    assert found.outcome is not None
    assert decode_value(codecs, found.outcome) == value
    assert value_of(loaded(reader, small.task_id)) == "small"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    with pytest.raises(DecodeError):
        decode_value(codecs, found.outcome)
    file.write_bytes(content)
    reader.forget([record.task_id])
    assert not file.exists()
    with pytest.raises(PayloadMissingError):
        decode_value(codecs, found.outcome)


@clause("RS-8")
def test_a_record_leads_to_no_file_but_its_own(
    clients: Clients, namespace: str, capabilities: Capabilities, tmp_path: Path
) -> None:
    how, _ = offloading(namespace, tmp_path)
    client = clients.open(sealing=how)
    client.backend.capabilities = replace(capabilities, max_record_bytes=2**16)
    theirs, mine = success(new_id(), "x" * 2**17), new_id()
    client.store(theirs)
    outcome = loaded(client, theirs.task_id).outcome
    assert outcome is not None

    for body in (outcome.body, b"../../../etc/passwd 5", b""):
        inject(client, mine, success(mine, 1)._replace(
            outcome=outcome._replace(body=body)
        ).encode())  # fmt: skip
        with pytest.raises(CorruptRecordError):
            client.load(mine)
        client.forget([mine])


def offloading(namespace: str, folder: Path) -> tuple[Sealing, Codecs]:
    """Return what puts large outcomes into a folder, and what reads them there."""
    place = Offload(f"file://{folder}", namespace=namespace, keyring=Keyring())
    how = Sealing(namespace=namespace, keyring=Keyring(), offload=place)
    return how, Codecs({"json": JsonSerializer()}, fetch=place.fetch)
