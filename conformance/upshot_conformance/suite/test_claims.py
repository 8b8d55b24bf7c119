"""Claims: each capability that is declared can be seen to be true, at the hooks."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from upshot import clock
from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.client import ResultClient
from upshot.listening import Hint, Listener
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import together
from upshot_conformance.fixtures import Clients
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.suite.claims import claiming
from upshot_conformance.suite.lives import MOMENT, by_load, gone_in_time, store
from upshot_conformance.timing import Timing

PATIENCE = 5.0
"""Seconds that one call of a hook may take; the client's own default."""

LARGEST_TRIED = 4 * 2**20
"""Bytes of a record that is tried; whether a larger one is kept is a question of memory."""


def bodies(backend: Backend, keys: Sequence[str]) -> list[bytes | Exception | None]:
    """Return what the hook loads."""
    return list(backend.load(keys, PATIENCE))


def stored(client: ResultClient, record: StoredRecord) -> bool:
    """Store one record by the hook, and return whether it was applied."""
    return list(client.backend.store([record], PATIENCE)) == [True]


def of_key(client: ResultClient, key: str, body: bytes = b"anything") -> StoredRecord:
    """Return a terminal record with a key and a body of our own."""
    return client.encode(success(new_id(), 1))._replace(key=key, body=body)


# -- push -----------------------------------------------------------------------------------------


def heard(listener: Listener, wanted: Callable[[Hint], bool], within: float) -> Hint | None:
    """Return the first hint of a kind; None if there was none in time."""
    deadline = clock.Deadline(within)
    while not deadline.expired:
        for hint in listener.wait(deadline.left(0.1) or 0.0):
            if wanted(hint):
                return hint
    return None


@clause("CP-3")
@pytest.mark.needs("push", probe=True)
def test_whoever_listens_hears_of_an_end_and_of_a_deletion(
    client: ResultClient, second_client: ResultClient, capabilities: Capabilities, timing: Timing
) -> None:
    patience = timing.within if capabilities.push else timing.quiet
    record = second_client.encode(success(new_id(), 1))
    client.load(new_id())  # connects
    listener = client.backend.listen(PATIENCE)
    assert isinstance(listener, Listener), "push is declared, and there is no listener"
    try:
        listener.subscribe([record.key, record.key + "-other"])
        second_client.backend.store([record], PATIENCE)
        end = heard(listener, lambda hint: hint.key == record.key, patience)
        assert end is not None, "nobody told that the record was stored"
        assert end.body in (None, record.body), "the hint has another body than the record"

        second_client.backend.delete([record.key], PATIENCE)
        assert heard(listener, lambda hint: hint == (record.key, b""), patience), (
            "nobody told that the record was deleted"
        )
    finally:
        listener.close()


@clause("CP-3")
@pytest.mark.needs("push")
def test_a_listener_hears_of_a_key_that_it_subscribes_to_later(
    client: ResultClient, second_client: ResultClient, within: float
) -> None:
    first, second = (second_client.encode(success(new_id(), n)) for n in range(2))
    listener = client.backend.listen(PATIENCE)
    assert listener is not None, "push is declared, and there is no listener"
    try:
        listener.subscribe([first.key])
        listener.wait(0.0)
        listener.unsubscribe([first.key, "unknown"])
        listener.subscribe([second.key])
        second_client.backend.store([first, second], PATIENCE)
        told = heard(listener, lambda hint: hint.key == second.key, within)
    finally:
        listener.close()
        listener.close()

    assert told, "nobody told of the second key"


@clause("CP-3")
@pytest.mark.needs("push")
def test_a_listener_that_waits_can_be_interrupted(client: ResultClient, within: float) -> None:
    client.load(new_id())
    listener = client.backend.listen(PATIENCE)
    assert listener is not None, "push is declared, and there is no listener"
    began = clock.monotonic()
    try:
        listener.subscribe([client.encode(success(new_id(), 1)).key])
        listener.interrupt()
        listener.wait(4 * within)
    finally:
        listener.close()

    took = clock.monotonic() - began
    assert took < 2 * within, "it waited on"


# -- scan -----------------------------------------------------------------------------------------


@clause("CP-3")
@pytest.mark.needs("scan", probe=True)
def test_a_listing_has_every_record_of_its_namespace_and_no_other(
    target: Target, clients: Clients, namespace: str, capabilities: Capabilities
) -> None:
    # Where it is not declared, it is claimed, to find out whether it works; and keys are shorter
    # than they may be, so that some are hashed.
    longest = min(200, capabilities.max_key_bytes)
    make = claiming(target, scan=True, max_key_bytes=longest)
    client = clients.open(make=make)
    records = [success(task_id, 1) for task_id in ("plain", "two words", "é*?[a]%_", "x" * 255)]
    records += [success(new_id(), n) for n in range(5)]
    gone = success("forgotten", 1)
    client.store_many([*records, gone])
    client.forget([gone.task_id])
    for name in (f"{namespace}_", f"{namespace}%", f"{namespace}x", f"{namespace[:-1]}?"):
        with ResultClient(make, url=target.url, namespace=name, expires=client.expires) as other:
            other.store(success(f"of {name}", 2))
            found = [record.task_id for record in other.scan()]
            other.forget([f"of {name}"])
            assert found == [f"of {name}"], "a namespace that begins like others"

    listed = sorted(client.scan(), key=lambda record: record.task_id)

    assert listed == sorted(records, key=lambda record: record.task_id)


@clause("CP-3")
@pytest.mark.needs("scan")
def test_a_listing_of_thousands_is_complete(client: ResultClient) -> None:
    ids = {new_id() for _ in range(2_500)}
    client.store_many([success(task_id, 1) for task_id in ids])

    listed = [record.task_id for record in client.scan()]
    client.forget(ids)  # quicker than the harness

    assert len(listed) == len(ids)
    assert set(listed) == ids


# -- shared, reread, intermediate, atomic, visibility ---------------------------------------------


@clause("CP-3")
@pytest.mark.needs("shared", probe=True)
def test_another_process_has_what_is_stored_here(
    target: Target, client: ResultClient, namespace: str
) -> None:
    task_id = new_id()
    client.store(success(task_id, "shared"))

    found = elsewhere.run(target, namespace, "load", ids=[task_id])

    assert found == [["SUCCESS", "shared"]]


@clause("CP-3")
@pytest.mark.needs("reread", probe=True)
def test_a_body_can_be_loaded_again_and_again(
    client: ResultClient, second_client: ResultClient
) -> None:
    record = client.encode(success(new_id(), 1))
    assert stored(client, record)

    for each in (client, second_client) * 3:
        assert bodies(each.backend, [record.key, record.key]) == [record.body] * 2


@clause("CP-3")
@pytest.mark.needs("intermediate", probe=True)
@pytest.mark.parametrize("state", [State.QUEUED, State.STARTED, State.RETRY, "CUSTOM"])
def test_a_record_that_is_not_terminal_can_be_loaded(
    client: ResultClient, second_client: ResultClient, state: str
) -> None:
    record = client.encode(unfinished(new_id(), state))
    assert stored(client, record)

    assert bodies(second_client.backend, [record.key]) == [record.body]


@clause("CP-3")
@pytest.mark.needs("atomic")
def test_of_writers_at_the_same_moment_one_is_told_that_it_won(
    client: ResultClient, clients: Clients, within: float
) -> None:
    rivals = [client, *(clients.open() for _ in range(3))]
    keys = [client.encode(success(new_id(), n)).key for n in range(25)]

    def write(rival: ResultClient, body: bytes) -> list[bool]:
        return [stored(rival, of_key(rival, key, body)) for key in keys]

    names = [b"writer %d" % n for n in range(len(rivals))]
    writes = [partial(write, rival, name) for rival, name in zip(rivals, names, strict=True)]
    answers = together(writes, within=4 * within)

    for place, (key, body) in enumerate(zip(keys, bodies(client.backend, keys), strict=True)):
        winners = [name for name, won in zip(names, answers, strict=True) if won[place]]
        assert winners == [body], f"of the writers of {key}, these were told that they won"


@clause("CP-3")
def test_a_finished_write_is_seen_within_the_declared_visibility(
    client: ResultClient, second_client: ResultClient, capabilities: Capabilities, timing: Timing
) -> None:
    late: list[float] = []
    for n in range(20):
        task_id = new_id()
        assert second_client.load_many([task_id]) == [None]
        client.store(success(task_id, n))
        finished = clock.monotonic()
        while True:
            began = clock.monotonic()
            found = second_client.load(task_id)
            if found is not None or began - finished > timing.within:
                break
            late.append(began - finished - capabilities.visibility)
            clock.sleep(timing.poll)
        assert value_of(found) == n

    too_late = [seconds for seconds in late if seconds > 0]
    assert too_late == [], "seconds beyond the visibility at which a write was not seen"


# -- limits ---------------------------------------------------------------------------------------


def longest_keys(prefix: str, capabilities: Capabilities, alphabet: str) -> list[str]:
    """Return keys of the greatest length, of all characters of an alphabet, that differ at the end.

    Args:
        prefix: what they begin with.
        capabilities: the limit.
        alphabet: characters, of which the first is one byte long.
    """
    room = capabilities.max_key_bytes - len(prefix.encode()) - 1
    texts: list[str] = []
    text = ""
    for character in alphabet:
        if len((text + character).encode()) > room:
            texts.append(text)
            text = ""
        text += character
    texts.append(text)
    filled = [prefix + each + alphabet[0] * (room - len(each.encode())) for each in texts]
    return [each + end for each in filled for end in "Aa"]


def assert_are_keys(client: ResultClient, keys: Sequence[str]) -> None:
    """Assert that each of the keys has a record of its own."""
    records = [of_key(client, key, b"%d" % n) for n, key in enumerate(keys)]

    assert list(client.backend.store(records, PATIENCE)) == [True] * len(keys)
    assert bodies(client.backend, keys) == [record.body for record in records]
    assert bodies(client.backend, keys[:1]) == [records[0].body]
    client.backend.delete(keys[::2], PATIENCE)
    assert bodies(client.backend, keys) == [
        None if n % 2 == 0 else record.body for n, record in enumerate(records)
    ]


def prefix_of(client: ResultClient) -> str:
    """Return what the keys of a client begin with."""
    return client.encode(success("x", 1)).key.removesuffix("x")


@clause("CP-3")
def test_a_key_may_be_as_long_as_declared(client: ResultClient, capabilities: Capabilities) -> None:
    alphabet = "".join(sorted(set(string.printable) - set(string.whitespace)))

    keys = longest_keys(prefix_of(client), capabilities, alphabet)

    assert {len(key.encode()) for key in keys} == {capabilities.max_key_bytes}
    assert_are_keys(client, keys)


TEXT = (
    "aé \u00a0ßẞİ\u0131\u017f\u212a日本語\u05e9\u05dc\u0301🦀\U0001f3fd\u200b\u2066\ufeff"
    "\u212bA\u030aﬁ%_\\*?[]'\"`$:;#/"
)
"""Printable text with what services trim, fold, compose, escape and take for patterns."""


@clause("CP-3")
@pytest.mark.needs("text_keys", probe=True)
def test_a_key_may_be_any_text(client: ResultClient, capabilities: Capabilities) -> None:
    prefix = prefix_of(client)
    keys = [prefix + character for character in dict.fromkeys(TEXT)]
    keys += [f"{prefix}k{character}k" for character in dict.fromkeys(TEXT)]
    keys += [prefix + each for each in ("e\u0301", "trail ", "trail", " lead", "a b", "É", "Trail")]

    assert_are_keys(client, [*keys, *longest_keys(prefix, capabilities, TEXT)])


@clause("CP-3")
def test_a_body_is_any_bytes_up_to_the_declared_length(
    client: ResultClient, second_client: ResultClient, capabilities: Capabilities
) -> None:
    size = min(LARGEST_TRIED, capabilities.max_record_bytes)
    made = random.Random(size)
    contents = [bytes(range(256)), b"\xff\xfe\x00", b"\r\n", made.randbytes(size)]
    prefix = prefix_of(client)
    records = [of_key(client, f"{prefix}{n}", body) for n, body in enumerate(contents)]

    assert [stored(client, record) for record in records] == [True] * len(records)

    found = bodies(second_client.backend, [record.key for record in records])
    same = [body == content for body, content in zip(found, contents, strict=True)]
    assert same == [True] * len(contents), "a body came back as another one"


@clause("CP-3")
@pytest.mark.needs("expiry_resolution", probe=True)
def test_records_expire(target: Target, clients: Clients, timing: Timing) -> None:
    declared = target.capabilities and target.capabilities.expiry_resolution
    resolution = 1.0 if declared is None else declared  # where none is declared, to find out
    client = clients.open(make=claiming(target, expiry_resolution=resolution))
    short, long = new_id(), new_id()
    client.store(success(long, 1), expires=100.0)
    kept = store(client, [success(short, 1)], MOMENT)

    gone_in_time(partial(by_load, client, short), kept, timing)

    assert by_load(client, long)
