"""Isolation: other namespaces, other objects of the service, other versions of the application."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import CorruptRecordError, UntrustedContentError
from upshot.keys import Keyspace
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import ended, failure, new_id, success, unfinished, value_of
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite.expect import loaded
from upshot_conformance.suite.forge import OTHER_LAYOUTS, inject
from upshot_conformance.suite.waits import returns, times_out
from upshot_conformance.timing import Timing

ALIKE = (
    # each is the beginning of the next ones, and separators are no end
    "", "a", "ab", "a:", "a:b", "a#", "a/b",
    # letter case, Unicode forms, what services trim
    "A", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "a ", "a\0", "a\n",
    # globs and wildcards, and what they would match
    "a*", "[ab]", "a_", "a%", "%", "a%3A", "ab3A", "a_3A", "'", "${a}",
    # the longest ones, which differ in their last letter
    "x" * 24, "x" * 23 + "y", "🦀" * 24, "🦀" * 23 + "🐙",
)  # fmt: skip
"""What is added to the test's own namespace to make others that some service takes for it."""

FEW = ("", "a", "ab", "A", "a_", "a:", "ab3A", "🦀" * 24, "🦀" * 23 + "🐙")
"""Those of them that have most often been taken for another."""

IDS = ("same", "b:same", "b", "é", "x" * 255)

OTHER_SERIALIZERS = ("pickle", "msgpack", "yaml", "JSON", "json ", "json2", "application/json", "")


@pytest.fixture
def alike(clients: Clients, namespace: str) -> Iterator[dict[str, ResultClient]]:
    """A client in each of the namespaces that look alike."""
    yield from opened(clients, namespace, ALIKE)


@pytest.fixture
def few(clients: Clients, namespace: str) -> Iterator[dict[str, ResultClient]]:
    """A client in each of a few of them: on some services a client takes a while to close."""
    yield from opened(clients, namespace, FEW)


def opened(
    clients: Clients, namespace: str, endings: Sequence[str]
) -> Iterator[dict[str, ResultClient]]:
    """Open a client in each namespace, and leave nothing there in the end."""
    made = {ending: clients.open(namespace=namespace + ending) for ending in endings}
    yield made
    for client in made.values():  # a harness does not find a namespace that is hashed
        client.forget(IDS)


def fill(alike: dict[str, ResultClient]) -> None:
    """Store a value of its own under the same ids in each namespace."""
    for ending, client in alike.items():
        applied = client.store_many([success(task_id, [ending, task_id]) for task_id in IDS])
        assert all(applied), f"{ending!r} was taken for another namespace"


def values(client: ResultClient) -> list[object]:
    """Return the value of each id in a client's namespace, None where there is none."""
    found = client.load_many(IDS)
    return [value_of(each) if isinstance(each, Record) else each for each in found]


@clause("IS-1")
def test_namespaces_that_look_alike_have_and_forget_records_of_their_own(
    alike: dict[str, ResultClient],
) -> None:
    fill(alike)
    forgotten = list(alike)[::2]

    for ending, client in alike.items():
        own: list[object] = [[ending, task_id] for task_id in IDS]
        assert values(client) == own
        assert value_of(loaded(client, "same")) == [ending, "same"]
        assert value_of(client.wait("b:same", timeout=0)) == [ending, "b:same"]
        assert dict(client.wait_many(IDS, timeout=0)).keys() == set(IDS)

    for ending in forgotten:
        alike[ending].forget(IDS)

    for ending, client in alike.items():
        own = [None if ending in forgotten else [ending, task_id] for task_id in IDS]
        assert values(client) == own, f"after others were forgotten, in {ending!r}"


@clause("IS-1")
def test_an_end_or_a_forget_in_one_namespace_wakes_nobody_in_another(
    few: dict[str, ResultClient], timing: Timing
) -> None:
    awaited = ("", "a", "a_", "A", "🦀" * 24)
    waits = {
        ending: start(partial(few[ending].wait, "same", timeout=4 * timing.within))
        for ending in awaited
    }
    timing.eventually(lambda: all(few[ending].stats()["waiters"] for ending in awaited))

    for ending in few.keys() - waits.keys():
        few[ending].store(success("same", "another's"))
        few[ending].forget(["same"])

    assert timing.throughout(lambda: not any(wait.done() for wait in waits.values()))
    for ending in awaited:
        assert not waits[ending].done(), f"the wait in {ending!r} was woken by another namespace"
        few[ending].store(success("same", ending))
        assert value_of(waits[ending].result(timing.within)) == ending


@clause("IS-1")
@pytest.mark.needs("scan")
def test_a_scan_stays_inside_its_namespace(
    few: dict[str, ResultClient], namespace: str, capabilities: Capabilities, within: float
) -> None:
    fill(few)

    for ending, client in few.items():
        own = {task_id: [ending, task_id] for task_id in IDS}
        assert {each.task_id: value_of(each) for each in client.scan()} == own
        keyspace = Keyspace(
            namespace + ending,
            max_bytes=capabilities.max_key_bytes,
            text=capabilities.text_keys,
        )
        found = {key for prefix in keyspace.prefixes for key in client.backend.scan(prefix, within)}
        assert found == set(map(keyspace.key, IDS)), f"the keys that {ending!r} has"


@clause("IS-1")
def test_pruning_one_namespace_leaves_what_lives_in_the_others(
    few: dict[str, ResultClient], capabilities: Capabilities, timing: Timing
) -> None:
    fill(few)
    client, dead = few["a"], new_id()
    resolution = capabilities.expiry_resolution
    if resolution is not None:
        client.store(success(dead, "dies soon"), expires=0.01)
        timing.eventually(lambda: client.load(dead) is None, within=resolution + timing.within)

    client.prune()

    assert client.load(dead) is None
    for ending, each in few.items():
        assert values(each) == [[ending, task_id] for task_id in IDS], f"in {ending!r}"


def use_everything(
    client: ResultClient, handle: MakeHandle, timing: Timing, capabilities: Capabilities
) -> list[str]:
    """Do all that a client can do but close; return the ids that it stored and did not forget."""
    size = min(2**20, capabilities.max_record_bytes // 4)
    records = [ended(new_id(), state) for state in ("SUCCESS", "FAILURE", "REVOKED")]
    records += [unfinished(new_id(), state) for state in ("QUEUED", "STARTED", "RETRY", "CUSTOM")]
    records += [success(new_id(), "x" * size), success("x" * 255, 1), success("é a*b:c", 2)]
    ids = [record.task_id for record in records]
    client.store_many(records)
    client.store(success(ids[3], 1))
    returns(client, new_id(), timing)
    times_out(client, new_id(), timing)
    client.load_many(ids)
    handle(ids[0], client).ready()
    client.forget(ids[::2])
    handle(ids[1], client).forget()
    if capabilities.scan:
        assert {record.task_id for record in client.scan()} >= set(ids[3::2])
    client.prune()
    return ids[3::2]


@clause("IS-2")
def test_nothing_outside_a_namespace_is_touched(
    clients: Clients,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    timing: Timing,
    capabilities: Capabilities,
) -> None:
    keeper, mine = clients.open(namespace=f"{namespace}-keep"), f"{namespace}-mine"
    keeper.store_many([success("same", 1), unfinished("x" * 255), success("é a*b:c", 2)])
    sealed = keeper.encode(success("same", "in no namespace"))
    foreign = [f"{mine}", f"{mine}-too", f"x{mine}:same", f"{mine};same", f"{mine}%3A:same"]
    strangers = [sealed._replace(key=key) for key in foreign]
    assert all(keeper.backend.store(strangers, timing.within))
    before = {name: harness.read_raw(name) for name in harness.raw_objects(namespace)}
    assert len(before) >= len(foreign) + 3

    client = clients.open(namespace=mine)
    client.forget(use_everything(client, handle, timing, capabilities))
    client.close()

    after = {name: harness.read_raw(name) for name in harness.raw_objects(namespace)}
    assert sorted(before.keys() - after.keys()) == [], "what was removed outside the namespace"
    changed = [name for name, was in before.items() if after[name] != was]
    assert changed == [], "what was changed outside the namespace"


@clause("IS-2")
def test_every_server_object_lies_in_its_namespace(
    clients: Clients,
    handle: MakeHandle,
    harness: Harness,
    namespace: str,
    timing: Timing,
    capabilities: Capabilities,
    target: Target,
    run: Run,
) -> None:
    if not target.private or run.parallel:
        raise UnavailableError("others use the service too, so nobody knows whose objects it has")
    returns(clients.open(namespace=f"{namespace}-warm"), new_id(), timing)
    # What is there once for the whole service, such as the version of its tables, stays as it is.
    before = {name: held(harness, name) for name in harness.raw_objects("")}
    mine = f"{namespace}-mine"

    use_everything(clients.open(namespace=mine), handle, timing, capabilities)

    new = harness.raw_objects("") - before.keys()
    assert new, "the service shows nothing of what was stored"
    assert sorted(new - harness.raw_objects(mine)) == [], "objects outside the namespace"
    changed = [name for name, was in before.items() if held(harness, name) != was]
    assert changed == [], "objects of no namespace that change with what is stored"


def held(harness: Harness, name: str) -> bytes:
    """Return what an object holds, nothing if it cannot be read, such as the queue of a process."""
    try:
        return harness.read_raw(name)
    except UnavailableError:
        return b""


@clause("IS-3")
def test_a_record_of_another_version_is_refused_for_its_id_alone(
    client: ResultClient, handle: MakeHandle, capabilities: Capabilities, timing: Timing
) -> None:
    fine, strange = new_id(), {new_id(): layout for layout in OTHER_LAYOUTS}
    client.store(success(fine, "fine"))
    for task_id, layout in strange.items():
        inject(client, task_id, OTHER_LAYOUTS[layout](success(task_id, "of another version")))

    for task_id, layout in strange.items():
        asked = handle(task_id)
        assert refused(partial(client.load, task_id)) == task_id, f"loading one {layout}"
        assert refused(partial(client.wait, task_id, timeout=timing.within)) == task_id, layout
        assert refused(partial(asked.get, timeout=timing.within)) == task_id, layout
        assert refused(asked.ready) == task_id, f"asking for the state of one {layout}"
    batch = client.load_many([fine, *strange, fine])
    ends = dict(client.wait_many([*strange, fine], timeout=timing.within))
    for found in (batch[0], batch[-1], ends[fine]):
        assert isinstance(found, Record)
        assert value_of(found) == "fine"
    for found in (*batch[1:-1], *map(ends.__getitem__, strange)):
        assert isinstance(found, CorruptRecordError), f"found {found}"
    if capabilities.scan:
        assert [record.task_id for record in client.scan()] == [fine]


def refused(call: Callable[[], object]) -> str:
    """Return the id whose record cannot be read, as the error of a call says it."""
    with pytest.raises(CorruptRecordError) as told:
        call()
    return told.value.task_id


@clause("IS-3")
def test_a_wait_ends_when_a_record_of_another_version_comes(
    client: ResultClient, timing: Timing
) -> None:
    awaited = {new_id(): layout for layout in OTHER_LAYOUTS}
    waits = [start(partial(client.wait, each, timeout=4 * timing.within)) for each in awaited]
    timing.eventually(lambda: client.stats()["waiters"] == len(waits))

    for task_id, layout in awaited.items():
        inject(client, task_id, OTHER_LAYOUTS[layout](success(task_id, "of another version")))

    for wait in waits:
        with pytest.raises(CorruptRecordError):
            wait.result(5 * timing.within)


@clause("IS-3")
def test_an_id_whose_record_nobody_can_read_can_be_forgotten_and_used_anew(
    client: ResultClient,
) -> None:
    task_id = new_id()
    inject(client, task_id, OTHER_LAYOUTS["of the next version"](success(task_id, "strange")))
    assert not client.store(success(task_id, "too late")), "what cannot be read was replaced"

    client.forget([task_id])

    assert client.load(task_id) is None
    assert client.store(success(task_id, "again"))
    assert value_of(client.load(task_id)) == "again"


@clause("IS-3")
def test_what_another_serializer_wrote_is_refused_and_never_guessed(
    client: ResultClient, handle: MakeHandle
) -> None:
    for content_type in OTHER_SERIALIZERS:
        value, broken, written = new_id(), new_id(), Payload(content_type, b"1")
        client.store(success(value, 0)._replace(outcome=written, info=written))
        client.store(failure(broken, ValueError(0))._replace(outcome=written))

        for task_id in (value, broken):
            with pytest.raises(UntrustedContentError):
                handle(task_id).get(timeout=0)
            with pytest.raises(UntrustedContentError):
                value_of(client.load(task_id))
        with pytest.raises(UntrustedContentError):
            assert handle(value).info is None
        with pytest.raises(UntrustedContentError):
            assert handle(broken).traceback
        assert (handle(value).state, handle(broken).state) == (State.SUCCESS, State.FAILURE)
        assert loaded(client, value).outcome == written, "the bytes are another reader's to read"
