"""Reading: again, from many threads, from other processes, after a fork, without a trace."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import threading
import traceback
import warnings
from functools import partial

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ResultConsumedError, UpshotError
from upshot.record import Record
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import Clients, MakeHandle
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere
from upshot_conformance.timing import Timing


@clause("RD-1")
@pytest.mark.needs("reread", probe=True)
def test_a_result_can_be_read_again_and_again(
    client: ResultClient, second_client: ResultClient, handle: MakeHandle
) -> None:
    ids = [new_id() for _ in range(10)]
    client.store_many([success(task_id, index) for index, task_id in enumerate(ids)])

    forwards = [handle(task_id).get(timeout=0) for task_id in ids]
    backwards = [handle(task_id).get(timeout=0) for task_id in reversed(ids)]
    others = [value_of(second_client.wait(task_id, timeout=0)) for task_id in ids]
    batches = [second_client.load_many(ids) for _ in range(3)]

    assert forwards == backwards[::-1] == others == list(range(10))
    for batch in batches:
        assert [value_of(r) if isinstance(r, Record) else r for r in batch] == list(range(10))


@clause("RD-1")
@pytest.mark.lacks("reread")
def test_a_result_that_was_handed_out_is_the_same_or_says_so_at_once(
    client: ResultClient, within: float, timing: Timing
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1))

    assert value_of(client.wait(task_id, timeout=within)) == 1
    began = clock.monotonic()
    try:
        again = value_of(client.wait(task_id, timeout=within))
    except ResultConsumedError:
        again = 1
    assert again == 1
    assert clock.monotonic() - began < 1.0 + timing.jitter


@clause("RD-2")
def test_threads_that_share_a_client_get_their_own_answers(
    client: ResultClient, within: float
) -> None:
    def live(name: str) -> int:
        for index in range(10):
            task_id, value = f"{name}-{index}", f"{name} {index} " * 100
            assert client.store(success(task_id, value))
            assert value_of(client.load(task_id)) == value
            assert value_of(client.wait(task_id, timeout=within)) == value
            found = client.load_many([task_id, f"{name}-unknown", task_id])
            assert [record and isinstance(record, Record) for record in found] == [True, None, True]
            client.forget([task_id])
            assert client.load(task_id) is None
        return 10

    names = [f"thread-{number}" for number in range(32)]

    assert together([partial(live, name) for name in names], within=6 * within) == [10] * 32


@clause("RD-2")
def test_threads_that_wait_on_one_client_each_wake_by_their_own_id(
    client: ResultClient, second_client: ResultClient, within: float
) -> None:
    ids = [new_id() for _ in range(32)]
    waits = [start(partial(client.wait, task_id, timeout=2 * within)) for task_id in ids]

    for task_id in reversed(ids):
        second_client.store(success(task_id, f"for {task_id}"))

    found = [value_of(wait.result(3 * within)) for wait in waits]
    assert found == [f"for {task_id}" for task_id in ids]


@clause("RD-3")
@pytest.mark.needs("shared")
def test_another_process_reads_what_this_one_stored(
    target: Target, client: ResultClient, namespace: str
) -> None:
    stored, unknown = new_id(), "another process asks for this: é 🦀"
    client.store(success(stored, {"n": [1, None, "é"]}))

    found = elsewhere.run(target, namespace, "load", ids=[stored, unknown])

    assert found == [["SUCCESS", {"n": [1, None, "é"]}], None]


@clause("RD-3")
@pytest.mark.needs("shared")
def test_a_wait_in_another_process_is_woken_by_this_one(
    target: Target, client: ResultClient, namespace: str, within: float
) -> None:
    ids = [new_id() for _ in range(5)]
    with elsewhere.Other(target, namespace, "wait", ids=ids, timeout=4 * within) as other:
        answer = start(other.finish)
        client.store_many([success(task_id, index) for index, task_id in enumerate(ids)])

        assert answer.result(elsewhere.SECONDS) == {each: i for i, each in enumerate(ids)}


@clause("RD-3")
@pytest.mark.needs("shared")
def test_a_pickled_handle_works_where_the_same_backend_is_open(
    target: Target, client: ResultClient, handle: MakeHandle, namespace: str, within: float
) -> None:
    task_id = new_id()
    client.store(success(task_id, "carried"))

    pickled = base64.b64encode(pickle.dumps(handle(task_id))).decode()

    found = elsewhere.run(target, namespace, "unpickle", handle=pickled, timeout=within)
    assert found == "carried"


@clause("RD-3")
def test_a_pickled_handle_refuses_at_once_where_no_backend_is_open(
    target: Target, handle: MakeHandle, namespace: str
) -> None:
    pickled = pickle.dumps(handle(new_id()))

    text = base64.b64encode(pickled).decode()
    found = elsewhere.run(target, namespace, "unpickle_unopened", handle=text)

    assert found == "ConfigError"
    secret = (target.url.password or "").encode()
    shown = str(target.url).encode()  # in it a user, or a host, may have the password's letters
    assert not secret or pickled.count(secret) <= shown.count(secret)
    assert len(pickled) < 1000, "a handle is an id and an address, and nothing more"


@clause("RD-3")
@pytest.mark.lacks("shared")
def test_another_process_sees_nothing_of_what_is_not_shared(
    target: Target, client: ResultClient, namespace: str
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1))

    assert elsewhere.run(target, namespace, "load", ids=[task_id]) == [None]


def in_child(client: ResultClient, before: str, after: str) -> None:
    """What a forked child does with the parent's client; an exception is its exit code."""
    assert value_of(client.load(before)) == "before the fork"
    assert client.store(success(after, "after the fork"))
    assert value_of(client.wait(after, timeout=5)) == "after the fork"
    client.close()


def fork(client: ResultClient, before: str, after: str) -> int:
    """Fork a child that uses the client; return its process id."""
    with warnings.catch_warnings():
        # Python 3.12 warns that a child of a process with threads may deadlock: to show that
        # it does not is what this test is for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            in_child(client, before, after)
            code = 0
        except UpshotError:
            code = 0  # to refuse with a typed error is allowed
        except BaseException:  # nothing may leave the child but its exit code and this text
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code(child: int, within: float) -> int | None:
    """Return how a child ended; None if it had to be killed because it hung."""
    deadline = clock.Deadline(within)
    while not deadline.expired:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        clock.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@clause("RD-4")
def test_a_forked_child_works_on_its_own_and_the_parent_does_not_notice(
    clients: Clients, client: ResultClient, capabilities: Capabilities, within: float
) -> None:
    if not hasattr(os, "fork"):
        raise UnavailableError("this system cannot fork")
    before, after, awaited = new_id(), new_id(), new_id()
    client.store(success(before, "before the fork"))
    waiter = start(lambda: client.wait(awaited, timeout=4 * within))
    while not client.stats()["waiters"]:
        clock.sleep(0.001)

    code = exit_code(fork(client, before, after), within=3 * within)

    assert code == 0, "the child failed or hung"
    assert not waiter.done()
    clients.open().store(success(awaited, "not disturbed"))
    assert value_of(waiter.result(4 * within)) == "not disturbed"
    if capabilities.shared:
        assert value_of(client.load(after)) == "after the fork"


@clause("RD-4")
def test_a_fork_amid_the_work_of_other_threads_leaves_no_lock_behind(
    client: ResultClient, within: float
) -> None:
    if not hasattr(os, "fork"):
        raise UnavailableError("this system cannot fork")
    before, over = new_id(), threading.Event()
    client.store(success(before, "before the fork"))

    def work() -> None:
        records = [unfinished(new_id()) for _ in range(200)]
        ids = [record.task_id for record in records]
        while not over.is_set():  # as much as possible inside the backend, where its locks are
            client.store_many(records)
            client.load_many(ids)
            client.forget(ids)

    workers = [start(work) for _ in range(4)]
    code: int | None = 0
    try:
        for _ in range(12):
            code = exit_code(fork(client, before, new_id()), within=within)
            if code != 0:
                break
    finally:
        over.set()
        for worker in workers:
            worker.result(3 * within)

    assert code == 0, f"a child {'hung' if code is None else 'failed'}"


@clause("RD-5")
def test_reading_changes_nothing(
    client: ResultClient, handle: MakeHandle, harness: Harness, namespace: str
) -> None:
    ended, running = new_id(), new_id()
    client.store(success(ended, "read me"))  # to expire as the client is set, where it can
    client.store(unfinished(running))
    before = {name: harness.read_raw(name) for name in harness.raw_objects(namespace)}
    expiry = remaining(harness, namespace)

    for _ in range(100):
        client.load(ended)
        client.load_many([ended, running])
        client.wait(ended, timeout=0)
        handle(ended).get(timeout=0)
        handle(running).ready()

    assert {name: harness.read_raw(name) for name in harness.raw_objects(namespace)} == before
    for name, left in remaining(harness, namespace).items():
        had = expiry[name]
        assert had is None or (left is not None and left <= had), "reading extended the expiry"


def remaining(harness: Harness, namespace: str) -> dict[str, float | None]:
    """Return what each server object has left to live, as far as the harness can tell."""
    try:
        return {name: harness.ttl(name) for name in harness.raw_objects(namespace)}
    except UnavailableError:
        return {}
