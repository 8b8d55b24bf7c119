"""Results: what is stored as a value is what comes back."""

from __future__ import annotations

import asyncio
import math
import random
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import EncodeError, PayloadTooLargeError, UpshotError
from upshot.record import Payload, Record
from upshot.result import AsyncResult
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.suite.expect import assert_same, loaded
from upshot_conformance.suite.values import (
    EXACT_NUMBERS,
    FALSY,
    HOSTILE_TEXTS,
    MANGLED_VALUES,
    json_values,
)

LARGEST_TRIED = 32 * 2**20
"""Bytes; a declared maximum above this is believed, not tried: it would need gigabytes."""

SIZES = (0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**20 - 1, 2**20, 2**20 + 1, 10 * 2**20)

examples = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def there_and_back(client: ResultClient, value: object) -> Any:
    """Store a value and read it with a look and with a wait."""
    task_id = new_id()
    assert client.store(success(task_id, value))
    looked, waited = value_of(client.load(task_id)), value_of(client.wait(task_id, timeout=0))
    assert_same(waited, looked)
    return looked


def nested(depth: int) -> list[Any] | dict[str, Any]:
    """Return lists and dicts, one inside the other."""
    value: list[Any] | dict[str, Any] = []
    for level in range(depth - 1):
        value = {"inner": value} if level % 2 else [level, value]
    return value


@clause("RS-1")
@examples
@given(value=json_values)
def test_any_plain_value_comes_back_equal_and_of_the_same_type(
    client: ResultClient, value: object
) -> None:
    assert_same(there_and_back(client, value), value)


@clause("RS-1")
@pytest.mark.parametrize("value", MANGLED_VALUES, ids=range(len(MANGLED_VALUES)))
def test_values_that_are_easily_mistaken_come_back(client: ResultClient, value: object) -> None:
    assert_same(there_and_back(client, value), value)


@clause("RS-1")
def test_values_nested_100_deep_come_back(client: ResultClient) -> None:
    assert_same(there_and_back(client, nested(100)), nested(100))


@clause("RS-2")
@pytest.mark.parametrize("value", FALSY, ids=repr)
def test_a_falsy_result_is_a_result_on_every_path(
    client: ResultClient, handle: MakeHandle, within: float, value: object
) -> None:
    task_id = new_id()
    called: Future[AsyncResult[Any]] = Future()
    handle(task_id).add_done_callback(called.set_result)
    client.store(success(task_id, value))
    asked = handle(task_id)

    assert asked.ready()
    assert asked.successful()
    assert_same(asked.get(timeout=0), value)
    assert_same(asked.get(timeout=within), value)
    assert_same(asked.result, value)
    assert_same(asyncio.run(asked.aget(timeout=within)), value)
    assert_same(value_of(loaded(client, task_id)), value)
    batch = dict(client.wait_many([task_id], timeout=within))[task_id]
    assert isinstance(batch, Record)
    assert_same(value_of(batch), value)
    assert_same(called.result(within).get(timeout=0), value)


@clause("RS-2")
def test_no_result_is_told_apart_from_none(client: ResultClient, handle: MakeHandle) -> None:
    ended, unknown = new_id(), new_id()
    client.store(success(ended, None))

    assert handle(ended).ready()
    assert not handle(unknown).ready()
    assert [record is None for record in client.load_many([ended, unknown])] == [False, True]


@clause("RS-3")
@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_any_text_comes_back(client: ResultClient, text: str) -> None:
    assert_same(there_and_back(client, text), text)
    assert_same(there_and_back(client, {text: [text]}), {text: [text]})


@clause("RS-3")
@pytest.mark.parametrize("text", ["\ud800", "a\udc80b", "\udfff\ud800"], ids=range(3))
def test_a_lone_surrogate_comes_back_or_is_refused(client: ResultClient, text: str) -> None:
    try:
        found = there_and_back(client, text)
    except EncodeError:
        return

    assert_same(found, text)


@clause("RS-4")
@pytest.mark.parametrize("number", EXACT_NUMBERS, ids=range(len(EXACT_NUMBERS)))
def test_numbers_come_back_exactly(client: ResultClient, number: float) -> None:
    assert_same(there_and_back(client, number), number)
    assert_same(there_and_back(client, {"n": [number]}), {"n": [number]})


@clause("RS-4")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=repr)
def test_nan_and_infinities_come_back_or_are_refused(client: ResultClient, number: float) -> None:
    try:
        found = there_and_back(client, [number])
    except EncodeError:
        return

    assert_same(found, [number])


@clause("RS-5")
@pytest.mark.parametrize(
    "data",
    [b"", bytes(range(256)), b"\x80\x81\xff", b"text", b"\0" * 1000, "é".encode(), b"\xff" * 4097],
    ids=range(7),
)
def test_bytes_come_back_as_bytes(client: ResultClient, data: bytes) -> None:
    assert_same(there_and_back(client, data), data)
    assert_same(there_and_back(client, [data, {"k": data}]), [data, {"k": data}])


@clause("RS-5")
def test_no_byte_at_the_edge_of_a_payload_is_lost_or_translated(client: ResultClient) -> None:
    edges = [bytes([byte]) * 3 for byte in range(33)] + [b"\r\n", b"\n\r\n", b"\xff", b"'\\", b""]
    records = [
        success(new_id(), None)._replace(outcome=Payload("x", edge + middle + edge))
        for edge in edges
        for middle in (b"", b"between")
    ]

    client.store_many(records)

    for record, found in zip(records, client.load_many(r.task_id for r in records), strict=True):
        assert isinstance(found, Record), f"{record.outcome}: {found}"
        assert found == record


@clause("RS-5", "RS-6")
@pytest.mark.parametrize("size", SIZES)
def test_random_bytes_of_any_size_come_back(
    client: ResultClient, second_client: ResultClient, capabilities: Capabilities, size: int
) -> None:
    record = success(new_id(), None)._replace(
        outcome=Payload("x", random.Random(0).randbytes(size))
    )
    if len(record.encode()) > capabilities.max_record_bytes:
        with pytest.raises(PayloadTooLargeError):
            client.store(record)
        return

    client.store(record)

    looked = second_client.load(record.task_id) == record
    waited = second_client.wait(record.task_id, timeout=0) == record
    assert (looked, waited) == (True, True), "another record came back than was stored"


@clause("RS-6")
def test_the_declared_maximum_is_at_least_64_kib(capabilities: Capabilities) -> None:
    assert capabilities.max_record_bytes >= 2**16


@clause("RS-6")
def test_a_record_of_the_maximum_is_kept_and_one_more_byte_is_refused(
    client: ResultClient, harness: Harness, namespace: str, capabilities: Capabilities
) -> None:
    limit = capabilities.max_record_bytes
    if limit > LARGEST_TRIED:
        # The refusal is the core's work, so a lower limit shows it as well as the declared one.
        limit = 2**16
        client.backend.capabilities = replace(capabilities, max_record_bytes=limit)
    longest, too_long = of_size(new_id(), limit), of_size(new_id(), limit + 1)

    assert client.store(longest)
    stored = harness.raw_objects(namespace)
    with pytest.raises(PayloadTooLargeError) as refused:
        client.store(too_long)
    with pytest.raises(PayloadTooLargeError):
        client.store_many([success(new_id(), 1), too_long])

    assert (refused.value.size, refused.value.limit) == (limit + 1, limit)
    assert client.load(longest.task_id) == longest
    assert client.load(too_long.task_id) is None
    assert harness.raw_objects(namespace) == stored


def of_size(task_id: str, size: int) -> Record:
    """Return a record that is `size` bytes long when encoded, none of them compressible."""
    record = Record(task_id=task_id, state=State.SUCCESS, outcome=Payload("x", b""))
    for _ in range(3):  # the length of the payload stands in the header, which grows with it
        body = random.Random(size).randbytes(size - len(record.encode()) + len(body_of(record)))
        record = record._replace(outcome=Payload("x", body))
    assert len(record.encode()) == size
    return record


def body_of(record: Record) -> bytes:
    return record.outcome.body if record.outcome else b""


@clause("RS-7")
def test_a_value_that_cannot_be_encoded_leaves_the_record_as_it_was(client: ResultClient) -> None:
    before = unfinished(new_id())
    client.store(before)
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    for value in (object(), cyclic, {"key": [object()]}, lambda: None, nested(100_000)):
        with pytest.raises(UpshotError) as refused:
            client.store(success(before.task_id, value))
        assert isinstance(refused.value, EncodeError)

    assert client.load(before.task_id) in (before, None)


@clause("RS-7")
def test_a_stored_value_shares_nothing_with_the_caller(
    client: ResultClient, handle: MakeHandle
) -> None:
    task_id = new_id()
    value: dict[str, Any] = {"list": [1, 2], "dict": {"a": 1}}

    client.store(success(task_id, value))
    value["list"].append("changed by the writer")
    first = handle(task_id).get(timeout=0)
    first["dict"]["a"] = "changed by a reader"

    assert handle(task_id).get(timeout=0) == {"list": [1, 2], "dict": {"a": 1}}


@clause("RS-7")
def test_each_reading_of_one_handle_gives_a_value_of_its_own(
    client: ResultClient, handle: MakeHandle
) -> None:
    asked = handle(new_id())
    client.store(success(asked.id, {"list": [1, 2]}))

    values: tuple[Any, ...] = (asked.get(timeout=0), asked.result)
    for value in values:
        value["list"].append("changed by a reader")
        value["more"] = value

    assert asked.get(timeout=0) == {"list": [1, 2]}
    assert asked.result == {"list": [1, 2]}
