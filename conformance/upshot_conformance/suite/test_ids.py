"""Ids: unknown ones, hostile ones, forbidden ones."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import InvalidTaskIdError, ResultTimeoutError
from upshot.record import Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite.expect import loaded
from upshot_conformance.suite.spy import Spy

HOSTILE_IDS = (
    # letter case
    "Case", "case", "CASE",
    # one letter, three Unicode forms of it, and the same letter without its dot
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "e",
    "ﬁ", "fi", "İ", "i", "\u0131", "ß", "ss",
    # spaces and what services trim
    " lead", "lead", "trail ", "trail", "trail  ", "\u00a0", "\u2003", "two words",
    # separators of keys, paths, queries, routing keys
    "a", "a:", ":a", "a:b", "a::b", "a#", "#", "a@0", "a/b", "a\\b", ".", "..", "../a", "a.b",
    "a.*.b", "a.#", "/", "//", "?", "a?b=c", "&", "=", ";", ",", "|",
    # globs, patterns, quotes, placeholders
    "*", "a*", "?b", "[a]", "[^a]", "%", "_", "a_", "ab", "'", '"', "`", "';DROP TABLE x;--",
    "$", "$where", "${a}", "{}", "{0}", "%s", "%(a)s", ":name", "?1", "\\0", "%00", "a%00b",
    "a%3Ab", "a%2Fb", "two%20words", "two+words", "\\u0061", "&amp;", "=20",
    # what could be taken for something else
    "null", "None", "0", "00", "1", "1.0", "1e0", "-1", "true", "NaN", "{}:{}", "[]",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    # of one CRC-32, of one hash in the style of Java
    "plumless", "buckeroo", "Aa", "BB",
    # other scripts, right to left, marks without a letter, astral planes, invisible letters
    "שלום", "\u202eabc", "مرحبا", "日本", "\u0301", "🦀", "🦀🦀", "\u200b", "a\u200bb", "\ufeff",
    # the longest ones, which differ in their last byte
    "x" * 255, "x" * 254 + "y", "x" * 254, "é" * 127, "é" * 126 + "è", "🦀" * 63 + "abc",
)  # fmt: skip
"""Different ids that some service, somewhere, takes for the same, or for syntax."""

FORBIDDEN_IDS = (
    "", "\0", "a\0b", "a\n", "a\r\nb", "\t", "\x1b[31m", "\x7f", "a\x85", "\x9f", "\ud800",
    "a\udfff",
    "x" * 256, "é" * 128, "x" * 250 + "-first" + "x" * 3840, "x" * 250 + "-other" + "x" * 3840,
    None, 5, 1.5, b"bytes", ("a",),
)  # fmt: skip


def names_of_forbidden(value: object) -> str:
    return f"{type(value).__name__}-{FORBIDDEN_IDS.index(value)}"


@clause("ID-1")
def test_an_unknown_id_has_no_record_and_is_pending(
    client: ResultClient, handle: MakeHandle
) -> None:
    ids = [new_id() for _ in range(3)]
    asked = handle(ids[0])

    assert client.load(ids[0]) is None
    assert client.load_many(ids) == [None, None, None]
    assert asked.state == State.PENDING
    assert not asked.ready()
    assert asked.result is None
    assert asked.traceback is None


@clause("ID-1")
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_waiting_for_an_unknown_id_times_out(
    client: ResultClient, handle: MakeHandle, timeout: float
) -> None:
    with pytest.raises(ResultTimeoutError):
        client.wait(new_id(), timeout=timeout)
    with pytest.raises(ResultTimeoutError):
        list(client.wait_many([new_id(), new_id()], timeout=timeout))
    with pytest.raises(ResultTimeoutError):
        handle(new_id()).get(timeout=timeout)
    with pytest.raises(ResultTimeoutError):
        asyncio.run(handle(new_id()).aget(timeout=timeout))


@clause("ID-1")
def test_forgetting_unknown_ids_succeeds(client: ResultClient, handle: MakeHandle) -> None:
    client.forget([new_id(), new_id()])
    handle(new_id()).forget()


@clause("ID-2")
def test_hostile_ids_have_records_of_their_own(
    client: ResultClient, second_client: ResultClient
) -> None:
    records = [success(task_id, index) for index, task_id in enumerate(HOSTILE_IDS)]

    applied = client.store_many(records)
    batch = second_client.load_many(HOSTILE_IDS)

    assert all(applied), "an id was taken for an earlier one"
    for index, (task_id, found) in enumerate(zip(HOSTILE_IDS, batch, strict=True)):
        assert isinstance(found, Record), f"{task_id!r}: {found}"
        single = loaded(client, task_id)
        assert (found.task_id, value_of(found)) == (task_id, index)
        assert (single.task_id, value_of(single)) == (task_id, index)


@clause("ID-2")
def test_forgetting_one_hostile_id_leaves_the_others(client: ResultClient) -> None:
    ids = [task_id for task_id in HOSTILE_IDS if len(task_id) < 8]
    client.store_many([success(task_id, task_id) for task_id in ids])

    client.forget(ids[::2])

    found = client.load_many(ids)
    assert [record is None for record in found[::2]] == [True] * len(ids[::2])
    assert [value_of(r) if isinstance(r, Record) else r for r in found[1::2]] == ids[1::2]


@clause("ID-2")
def test_a_wait_ends_by_its_own_id_only(client: ResultClient, quiet: float, within: float) -> None:
    awaited, others = "waiter", ["waiter ", "Waiter", "waite", "waiterr", "waiter:", "waiter*"]
    client.store_many([success(task_id, task_id) for task_id in others])

    with pytest.raises(ResultTimeoutError):
        client.wait(awaited, timeout=quiet)
    client.store(success(awaited, "mine"))

    assert value_of(client.wait(awaited, timeout=within)) == "mine"


@clause("ID-2")
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    ids=st.lists(
        st.text(
            st.sampled_from("aAbB:#.*%_ 'é\u0301é$/\\") | st.characters(exclude_categories=["C"]),
            min_size=1,
            max_size=40,
        ),
        min_size=2,
        max_size=12,
        unique=True,
    )
)
def test_any_two_ids_have_two_records(client: ResultClient, ids: list[str]) -> None:
    client.forget(ids)
    client.store_many([success(task_id, index) for index, task_id in enumerate(ids)])

    found = client.load_many(ids)

    assert [value_of(r) if isinstance(r, Record) else r for r in found] == list(range(len(ids)))


@clause("ID-3")
@pytest.mark.parametrize("task_id", FORBIDDEN_IDS, ids=names_of_forbidden)
def test_a_forbidden_id_is_refused_before_any_io(
    clients: Clients, target: Target, handle: MakeHandle, task_id: str
) -> None:
    spy = Spy.above(target.make())
    client = clients.open(make=lambda: spy)

    with pytest.raises(InvalidTaskIdError):
        client.store(Record(task_id=task_id, state=State.REVOKED))
    with pytest.raises(InvalidTaskIdError):
        client.load(task_id)
    with pytest.raises(InvalidTaskIdError):
        client.load_many(["fine", task_id])
    with pytest.raises(InvalidTaskIdError):
        client.wait(task_id, timeout=0)
    with pytest.raises(InvalidTaskIdError):
        client.forget(["fine", task_id])
    with pytest.raises(InvalidTaskIdError):
        handle(task_id, client)

    assert spy.calls == []


@clause("ID-3")
def test_one_forbidden_id_keeps_its_whole_batch_from_being_stored(client: ResultClient) -> None:
    records = [success("fine", 1), Record(task_id="a\0b", state=State.REVOKED)]

    with pytest.raises(InvalidTaskIdError):
        client.store_many(records)

    assert client.load("fine") is None


@clause("ID-4")
def test_reading_and_waiting_create_no_server_object(
    client: ResultClient,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    capabilities: Capabilities,
) -> None:
    ids = [new_id() for _ in range(100)]

    client.load_many(ids)
    for task_id in ids[:10]:
        client.load(task_id)
        handle(task_id).ready()
    with pytest.raises(ResultTimeoutError):
        list(client.wait_many(ids, timeout=0.05))
    if capabilities.scan:
        list(client.scan())

    assert harness.raw_objects(namespace) == set()
