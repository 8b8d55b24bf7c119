"""Servers that are killed, frozen or out of reach while results are awaited."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from upshot import State, clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError, ServiceError, ServiceUnavailableError
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_conformance.concurrency import start
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.servers import RabbitMQServer

ClientOpener = Callable[..., ResultClient]
Eventually = Callable[[Callable[[], bool]], None]
IsThere = Callable[[str], bool]

pytestmark = pytest.mark.timeout(400)  # on a busy machine the server takes a minute to start


def submit(client: ResultClient, *task_ids: str) -> None:
    """Record QUEUED, as an app does before a message leaves."""
    address = client.backend.reply_to
    client.store_encoded(
        [client.encode(unfinished(each, State.QUEUED), reply_to=address) for each in task_ids]
    )


def persist(worker: ResultClient, task_id: str, value: object, address: str) -> None:
    """Store the outcome, and as a worker does, try again until it is stored."""
    deadline = clock.Deadline(300.0)
    while True:
        try:
            worker.store(success(task_id, value), reply_to=address)
            return
        except ServiceUnavailableError:
            assert not deadline.expired


def test_a_server_that_is_killed_during_a_hundred_waits_loses_no_result(
    fragile: RabbitMQServer, open_client: ClientOpener, elsewhere_url: Callable[[str], str]
) -> None:
    submitter, worker = open_client(fragile.url), open_client(elsewhere_url(fragile.url))
    ids = [new_id() for _ in range(100)]
    submit(submitter, *ids)
    fragile.write_down_queues()
    address = submitter.backend.reply_to
    waits = [start(partial(submitter.wait, task_id, timeout=300)) for task_id in ids]
    half = threading.Event()

    def work() -> None:
        for number, task_id in enumerate(ids):
            persist(worker, task_id, number, address)
            if number == 50:
                half.set()

    working = start(work)
    assert half.wait(120)
    fragile.kill()
    fragile.restart()

    working.result(310)
    assert [value_of(wait.result(310)) for wait in waits] == list(range(100))
    submit(submitter, new_id())


def test_a_result_that_was_confirmed_while_nobody_could_be_reached_outlives_the_server(
    fragile: RabbitMQServer,
    open_client: ClientOpener,
    open_network: Callable[..., Any],
    elsewhere_url: Callable[[str], str],
) -> None:
    network = open_network(fragile.url)
    submitter = open_client(network.url)
    worker = open_client(elsewhere_url(fragile.url))
    task_id = new_id()
    submit(submitter, task_id)
    fragile.write_down_queues()
    waiting = start(partial(submitter.wait, task_id, timeout=300))

    network.die()
    network.cut()  # what comes now stays with the server
    persist(worker, task_id, "kept", submitter.backend.reply_to)
    assert submitter.load(task_id) is not None
    assert not waiting.done()
    fragile.kill()
    fragile.restart()
    network.revive()

    assert value_of(waiting.result(310)) == "kept"


def test_results_that_were_sent_while_the_connection_was_cut_are_found(
    server: RabbitMQServer,
    open_client: ClientOpener,
    open_network: Callable[..., Any],
    worker: ResultClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = open_network()
    submitter = open_client(network.url)
    ids = [new_id() for _ in range(60)]
    submit(submitter, *ids)
    waiting = start(lambda: dict(submitter.wait_many(ids, timeout=300)))

    for number, task_id in enumerate(ids):
        if number % 20 == 10:
            network.cut()
        worker.store(success(task_id, 1), reply_to=submitter.backend.reply_to)

    assert sorted(waiting.result(310)) == sorted(ids)
    assert "results wait there" in caplog.text
    assert "has lost" not in caplog.text


def test_a_frozen_server_ends_waits_and_stores_in_time(
    fragile: RabbitMQServer, open_client: ClientOpener
) -> None:
    submitter = open_client(fragile.url, timeout=1.0)
    task_id = new_id()
    submit(submitter, task_id)
    fragile.pause()
    try:
        began = clock.monotonic()
        with pytest.raises(ResultTimeoutError):
            submitter.wait(task_id, timeout=0.5)
        with pytest.raises(ServiceUnavailableError):
            submitter.store(success(task_id, 1))
        assert clock.monotonic() - began < 20.0
    finally:
        fragile.resume()

    deadline = clock.Deadline(60.0)
    while True:
        try:
            submitter.store(success(task_id, "thawed"))
            break
        except ServiceError:
            assert not deadline.expired
    # The store of the frozen server may have come through in the end.
    assert value_of(submitter.wait(task_id, timeout=30)) in (1, "thawed")


def test_a_server_that_is_away_refuses_what_would_have_no_way_home(
    fragile: RabbitMQServer, open_client: ClientOpener
) -> None:
    submitter = open_client(fragile.url, timeout=1.0)
    fragile.kill()
    try:
        with pytest.raises(ServiceUnavailableError):
            submit(submitter, new_id())
    finally:
        fragile.restart()

    patient = open_client(fragile.url, timeout=60.0)
    submit(patient, new_id())


def test_a_queue_that_somebody_deletes_is_declared_anew(
    submitter: ResultClient,
    worker: ResultClient,
    connection: AmqpConnection,
    is_there: IsThere,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task_id = new_id()
    submit(submitter, task_id)
    address = submitter.backend.reply_to

    async def delete(session: Session) -> None:
        await (await session.channel()).delete(address)

    connection.call(delete, 30.0)
    eventually(lambda: is_there(address))
    assert "has lost the queue of this process" in caplog.text

    worker.store(success(task_id, "found"), reply_to=address)
    assert value_of(submitter.wait(task_id, timeout=30)) == "found"


def test_a_queue_that_is_full_holds_up_the_sender_and_loses_nothing(
    worker: ResultClient,
    open_client: ClientOpener,
    server: RabbitMQServer,
    connection: AmqpConnection,
    record: Callable[..., StoredRecord],
) -> None:
    """A submitter that does not read: here its queue takes one message instead of 100 000."""
    address = f"upshot.reply.{new_id()}"

    async def declare(session: Session) -> None:
        channel = await session.channel()
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
        await channel.declare(address, arguments=arguments)

    async def get(session: Session) -> Received | None:
        channel = await session.channel()
        found = await channel.get(address)
        if found is not None:
            channel.ack(found.tag)
            await channel.sync()
        return found

    def take() -> str | None:
        found = connection.call(get, 30.0)
        return found and found.correlation_id

    connection.call(declare, 30.0)
    assert worker.store_encoded([record("first", terminal=True, reply_to=address)]) == [True]
    impatient = open_client(f"{server.url}?upshot_reply_expires=44", timeout=0.5)
    with pytest.raises(ServiceUnavailableError):
        impatient.store_encoded([record("second", terminal=True, reply_to=address)])

    storing = start(
        lambda: worker.store_encoded([record("third", terminal=True, reply_to=address)])
    )
    assert take() == "first"

    assert storing.result(60) == [True]
    assert take() == "third"
