"""Many results, many tasks, other processes, and what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from upshot import App, State, clock
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError, UnsupportedError
from upshot.record import Record
from upshot_conformance.concurrency import start
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.servers import RabbitMQServer

Eventually = Callable[[Callable[[], bool]], None]
IsThere = Callable[[str], bool]

PROGRAM = Path(__file__).parents[2] / "programs" / "submit_and_sleep.py"


def submit(client: ResultClient, *task_ids: str) -> None:
    """Record QUEUED, as an app does before a message leaves."""
    address = client.backend.reply_to
    client.store_encoded(
        [client.encode(unfinished(each, State.QUEUED), reply_to=address) for each in task_ids]
    )


def reply_queues(server: RabbitMQServer) -> set[str]:
    """Return the names of all reply queues, as the server lists them."""
    listed = server.control("list_queues", "--no-table-headers", "name")
    return {name for name in listed.split() if name.startswith("upshot.reply.")}


def test_ten_thousand_results_come_through_one_queue_connection_and_thread(
    server: RabbitMQServer,
    submitter: ResultClient,
    worker: ResultClient,
    connections: Callable[[], int],
) -> None:
    submit(worker, new_id())  # opens all that the worker needs
    worker.store(success("warm", 1))
    queues, before, threads = reply_queues(server), connections(), threading.active_count()
    ids = [new_id() for _ in range(10_000)]
    submit(submitter, *ids)
    address = submitter.backend.reply_to

    def work() -> None:
        worker.store_encoded([worker.encode(success(each, each), reply_to=address) for each in ids])

    waiting = start(lambda: list(submitter.wait_many(ids, timeout=100)))
    working = start(work)
    found = waiting.result(110)
    working.result(30)

    assert [value_of(record) for _, record in found if isinstance(record, Record)] == [
        task_id for task_id, _ in found
    ]
    assert sorted(task_id for task_id, _ in found) == sorted(ids)
    assert reply_queues(server) - queues == {address}
    assert connections() - before <= 1
    assert threading.active_count() - threads <= 2 + 2  # ours and the hub's; the test's own


def test_a_thousand_tasks_leave_nothing_behind(
    server: RabbitMQServer,
    submitter: ResultClient,
    worker: ResultClient,
    connections: Callable[[], int],
) -> None:
    def live() -> None:
        task_id = new_id()
        submit(submitter, task_id)
        worker.store(success(task_id, 1), reply_to=submitter.backend.reply_to)
        submitter.wait(task_id, timeout=60)
        submitter.forget([task_id])

    live()
    with pytest.raises(ResultTimeoutError):  # begins the thread that waits
        submitter.wait(new_id(), timeout=0.01)
    queues, before, threads = reply_queues(server), connections(), threading.active_count()

    for _ in range(1000):
        live()

    # What other tests left may be gone meanwhile, but nothing may have been added.
    assert reply_queues(server) <= queues
    assert connections() <= before
    assert threading.active_count() <= threads
    assert list(submitter.scan()) == []


@pytest.mark.parametrize("end", ["killed", "ended without closing"])
def test_a_process_that_is_gone_leaves_its_queue_for_no_longer_than_said(
    server: RabbitMQServer, eventually: Eventually, namespace: str, end: str
) -> None:
    url = f"{server.url}?upshot_reply_expires=1"
    options = [] if end == "killed" else ["end"]
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), url, namespace, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("upshot.reply.")
        if end == "killed":
            assert address in reply_queues(server)
            process.kill()
        _, errors = process.communicate(timeout=30)

    assert errors == ""
    # To declare it passively, as other tests do, would count as a use of it.
    eventually(lambda: address not in reply_queues(server))


def fork(action: Callable[[], None]) -> int:
    """Run `action` in a forked child, and return the child's exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: there are threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_forked_in_a_wait_has_an_address_of_its_own_and_steals_nothing(
    submitter: ResultClient, worker: ResultClient, eventually: Eventually, is_there: IsThere
) -> None:
    ended, awaited = new_id(), new_id()
    submit(submitter, ended, awaited)
    address = submitter.backend.reply_to
    worker.store(success(ended, "before the fork"), reply_to=address)
    submitter.wait(ended, timeout=30)
    waiting = start(partial(submitter.wait, awaited, timeout=90))
    eventually(lambda: submitter.stats()["waiters"] == 1)

    def in_child() -> None:
        assert submitter.backend.reply_to != address
        assert value_of(submitter.load(ended)) == "before the fork"
        assert submitter.load(awaited) is None, "its result will never come here"
        own = new_id()
        submit(submitter, own)
        worker.store(success(own, "the child's"), reply_to=submitter.backend.reply_to)
        assert value_of(submitter.wait(own, timeout=30)) == "the child's"
        submitter.close()

    assert fork(in_child) == 0
    assert is_there(address)
    worker.store(success(awaited, "the parent's"), reply_to=address)
    assert value_of(waiting.result(30)) == "the parent's"


def test_a_child_is_refused_the_handles_that_it_has_inherited(server: RabbitMQServer) -> None:
    with App(broker="memory://", backend=server.url.replace("amqp:", "rpc:")) as app:
        ended, awaited = (app.send_task("nobody.knows", task_id=new_id()) for _ in range(2))
        app.results.store(success(ended.id, 1), reply_to=app.results.backend.reply_to)
        assert ended.get(timeout=30) == 1

        def in_child() -> None:
            assert ended.get() == 1, "it had come before the fork"
            with pytest.raises(UnsupportedError, match="not submitted by this one"):
                awaited.get(timeout=30)
            app.close()

        assert fork(in_child) == 0


def test_a_child_that_ends_at_once_does_not_hold_anything_up(
    submitter: ResultClient, worker: ResultClient
) -> None:
    ids = [new_id() for _ in range(20)]
    submit(submitter, *ids)
    for task_id in ids:
        assert fork(lambda: None) == 0
        worker.store(success(task_id, task_id), reply_to=submitter.backend.reply_to)

    began = clock.monotonic()
    assert len(list(submitter.wait_many(ids, timeout=60))) == len(ids)
    assert clock.monotonic() - began < 60
