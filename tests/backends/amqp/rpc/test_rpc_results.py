"""What a submitter and a worker get of results that are carried."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pika import data  # type: ignore[import-untyped]

from upshot import State, clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.errors import (
    CorruptRecordError,
    ServiceClosedError,
    UrlError,
)
from upshot.record import Record
from upshot.url import Url
from upshot_backends.amqp import office
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.publisher import Parcel
from upshot_backends.amqp.replies import pack
from upshot_backends.amqp.results import AmqpBackend
from upshot_conformance.concurrency import start
from upshot_conformance.records import new_id, success, unfinished, value_of
from upshot_conformance.servers import RabbitMQServer

ClientOpener = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]
Eventually = Callable[[Callable[[], bool]], None]
IsThere = Callable[[str], bool]


def submit(client: ResultClient, *task_ids: str) -> None:
    """Record QUEUED, as an app does before a message leaves."""
    records = [
        client.encode(unfinished(task_id, State.QUEUED), reply_to=client.backend.reply_to)
        for task_id in task_ids
    ]
    assert all(client.store_encoded(records))


def end(worker: ResultClient, task_id: str, value: object, to: ResultClient) -> bool:
    """Store the outcome, as a worker does."""
    return worker.store(success(task_id, value), reply_to=to.backend.reply_to)


def publish(connection: AmqpConnection, *parcels: Parcel) -> list[bool]:
    """Publish behind every backend's back."""

    async def send(session: Session) -> list[bool]:
        return await session.publish(parcels)

    return connection.call(send, 30.0)


def test_reading_opens_nothing(
    submitter: ResultClient, connections: Callable[[], int], is_there: IsThere
) -> None:
    is_there("opens the connection that looks")
    before, threads = connections(), threading.active_count()

    assert submitter.load_many([new_id() for _ in range(100)]) == [None] * 100
    submitter.forget([new_id()])

    assert connections() <= before
    assert threading.active_count() <= threads
    assert not is_there(submitter.backend.reply_to)


def test_the_queue_is_there_before_the_first_message_can_leave(
    submitter: ResultClient, is_there: IsThere
) -> None:
    submit(submitter, new_id())

    assert is_there(submitter.backend.reply_to)


def test_a_result_comes_home_and_can_be_read_twice(
    submitter: ResultClient, worker: ResultClient
) -> None:
    task_id = new_id()
    submit(submitter, task_id)
    assert worker.store(unfinished(task_id), reply_to=submitter.backend.reply_to)
    waiting = start(partial(submitter.wait, task_id, timeout=30))

    assert end(worker, task_id, {"é": [1, None]}, submitter)

    assert value_of(waiting.result(30)) == {"é": [1, None]}
    assert value_of(submitter.wait(task_id, timeout=0)) == {"é": [1, None]}
    assert worker.load(task_id) is None


def test_progress_comes_home_in_order(
    submitter: ResultClient, worker: ResultClient, eventually: Eventually
) -> None:
    task_id = new_id()
    submit(submitter, task_id)
    for attempt in range(1, 6):
        worker.store(unfinished(task_id, attempt=attempt), reply_to=submitter.backend.reply_to)

    def arrived() -> bool:
        found = submitter.load(task_id)
        return found is not None and (found.state, found.attempt) == (State.STARTED, 5)

    eventually(arrived)


def test_the_first_end_is_the_end_whoever_tells_it(
    submitter: ResultClient, worker: ResultClient, eventually: Eventually
) -> None:
    task_id, last = new_id(), new_id()
    submit(submitter, task_id, last)

    for value in ("first", "second", "third"):
        end(worker, task_id, value, submitter)
    end(worker, last, "came after them", submitter)

    eventually(lambda: value_of(submitter.wait(last, timeout=30)) == "came after them")
    assert value_of(submitter.load(task_id)) == "first"


def test_all_clients_of_a_url_share_one_queue_until_the_last_one_closes(
    server: RabbitMQServer, open_client: ClientOpener, worker: ResultClient, is_there: IsThere
) -> None:
    first, second = open_client(), open_client(server.url.replace("amqp:", "pyamqp:"))
    task_id = new_id()
    address = first.backend.reply_to
    assert second.backend.reply_to == address
    assert worker.backend.reply_to != address

    submit(first, task_id)
    first.close()
    end(worker, task_id, "for both", second)
    assert value_of(second.wait(task_id, timeout=30)) == "for both"
    assert is_there(address)

    second.close()
    assert not is_there(address)
    assert open_client().backend.reply_to != address


def test_a_server_that_takes_its_time_hears_that_a_queue_is_to_go(
    open_client: ClientOpener,
    open_network: Callable[..., Any],
    is_there: IsThere,
    eventually: Eventually,
) -> None:
    client = open_client(open_network(delay=0.5).url)
    submit(client, new_id())
    address = client.backend.reply_to
    assert is_there(address)

    began = clock.monotonic()
    client.close()
    assert clock.monotonic() - began < 3.0
    eventually(lambda: not is_there(address))


def test_closing_ends_waits_and_stores(submitter: ResultClient, eventually: Eventually) -> None:
    task_id = new_id()
    submit(submitter, task_id)
    waiting = start(partial(submitter.wait, task_id, timeout=60))
    eventually(lambda: submitter.stats()["waiters"] == 1)

    submitter.close()

    with pytest.raises(ServiceClosedError):
        waiting.result(30)
    with pytest.raises(ServiceClosedError):
        submit(submitter, task_id)


@pytest.fixture
def old_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection count as one to a server that was not just restarted."""
    monkeypatch.setattr(office, "_RETURN", 0.0)


@pytest.mark.usefixtures("old_sessions")
def test_a_worker_whose_submitter_is_gone_goes_on(
    submitter: ResultClient, worker: ResultClient, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = new_id()
    submit(submitter, task_id)
    submitter_address = submitter.backend.reply_to
    submitter.close()

    with caplog.at_level(logging.INFO):
        assert worker.store(unfinished(task_id), reply_to=submitter_address)
        assert worker.store(success(task_id, 1), reply_to=submitter_address)

    told = [record.getMessage() for record in caplog.records if task_id in record.getMessage()]
    assert len(told) == 1
    assert "SUCCESS" in told[0]


def test_a_worker_gives_a_submitter_time_to_find_a_restarted_server(
    worker: ResultClient, connection: AmqpConnection, record: RecordMaker
) -> None:
    """The server may have forgotten a queue that was declared just before its end."""
    address = f"upshot.reply.{new_id()}"

    async def declare(session: Session) -> None:
        await (await session.channel()).declare(address, arguments={"x-expires": 60_000})

    async def get(session: Session) -> Received | None:
        return await (await session.channel()).get(address)

    assert worker.store_encoded([record("a", reply_to=address)]) == [True]
    storing = start(lambda: worker.store_encoded([record("a", terminal=True, reply_to=address)]))
    connection.call(declare, 30.0)

    assert storing.result(60) == [True]
    found = connection.call(get, 30.0)
    assert found is not None
    assert found.kind == "SUCCESS"


def test_a_worker_does_not_wait_for_ever_for_a_submitter_to_return(
    worker: ResultClient, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "_RETURN", 1.0)
    gone = [record("a", terminal=True, reply_to="upshot.reply.nobody")]

    assert worker.store_encoded(gone) == [True]


@pytest.mark.usefixtures("old_sessions")
def test_a_batch_for_many_addresses_is_answered_in_order(
    submitter: ResultClient, worker: ResultClient, record: RecordMaker
) -> None:
    """Of eight records every second one is refused here; the others are for others or nobody."""
    here = submitter.backend.reply_to
    there = worker.backend.reply_to
    submit(worker, new_id())
    batch = [
        record("a", terminal=True),
        record("a", terminal=True),
        record("a", reply_to=there),
        record("a", state="QUEUED", rank=17),
        record("b", state="QUEUED", rank=17, reply_to=here),
        record("b", rank=1),
        record("b", reply_to="upshot.reply.nobody", terminal=True),
        record("b", rank=2, reply_to=here),
    ]

    applied = submitter.store_encoded(batch)

    assert applied == [True, False] * 4


@pytest.mark.parametrize("address", ["a queue of others", "upshot.reply." + "é" * 200, "\0"])
def test_no_other_queue_is_written_to(
    submitter: ResultClient,
    connection: AmqpConnection,
    namespace: str,
    record: RecordMaker,
    address: str,
) -> None:
    async def declare(session: Session) -> None:
        await (await session.channel()).declare("a queue of others", durable=False)

    async def delete(session: Session) -> int:
        channel = await session.channel()
        found = await channel.declare("a queue of others", passive=True)
        await channel.delete("a queue of others")
        return found

    connection.call(declare, 30.0)

    assert submitter.store_encoded([record("a", terminal=True, reply_to=address)]) == [True]

    assert connection.call(delete, 30.0) == 0


class _Raw(bytes):
    """A value of AMQP's tables, encoded already."""


def _nested(depth: int) -> _Raw:
    """Return tables, one inside the other."""
    table = b""
    for _ in range(depth):
        table = b"F" + len(table).to_bytes(4, "big") + table
        table = b"\1n" + table
    return _Raw(table[2:])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"upshot-key": 5, "upshot-rank": "x"},
        # pika cannot decode these.
        {"in the year 292277026596": _Raw(b"T" + b"\x7f" + b"\xff" * 7)},
        {"deep": _nested(5000)},
    ],
    ids=["none", "wrong", "late", "deep"],
)
def test_what_is_no_result_stops_no_results(
    submitter: ResultClient,
    worker: ResultClient,
    connection: AmqpConnection,
    headers: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode: Any = data.encode_value

    def encode_value(pieces: list[bytes], value: object) -> int:
        if not isinstance(value, _Raw):
            return int(encode(pieces, value))
        pieces.append(bytes(value))
        return len(value)

    monkeypatch.setattr(data, "encode_value", encode_value)
    task_id = new_id()
    submit(submitter, task_id)

    garbage = Parcel(queue=submitter.backend.reply_to, body=b"garbage", headers=headers)
    assert publish(connection, garbage) == [True]
    end(worker, task_id, "unharmed", submitter)

    assert value_of(submitter.wait(task_id, timeout=30)) == "unharmed"


def test_garbage_under_a_key_is_an_error_of_that_id_alone(
    submitter: ResultClient, worker: ResultClient, connection: AmqpConnection, record: RecordMaker
) -> None:
    spoiled, sound = new_id(), new_id()
    submit(submitter, spoiled, sound)

    forged = record(spoiled, b"no record at all", terminal=True, rank=31)
    publish(connection, pack(forged, queue=submitter.backend.reply_to, persistent=True))
    end(worker, sound, "unharmed", submitter)

    ended = dict(submitter.wait_many([spoiled, sound], timeout=30))
    assert isinstance(ended[spoiled], CorruptRecordError)
    assert isinstance(ended[sound], Record)
    with pytest.raises(CorruptRecordError):
        submitter.load(spoiled)


def test_a_second_reader_gets_nothing(
    submitter: ResultClient, worker: ResultClient, connection: AmqpConnection
) -> None:
    """As our own last connection, of which the server does not know yet that it is dead."""
    submit(submitter, new_id())
    stolen: list[Received] = []

    async def read(session: Session) -> None:
        await (await session.channel()).consume(submitter.backend.reply_to, stolen.append)

    connection.call(read, 30.0)
    ids = [new_id() for _ in range(50)]
    submit(submitter, *ids)
    for task_id in ids:
        end(worker, task_id, task_id, submitter)

    assert len(dict(submitter.wait_many(ids, timeout=30))) == 50
    assert stolen == []


@pytest.mark.parametrize("value", ["0", "0.5", "86401", "soon", "-1", "nan"])
def test_a_wrong_option_is_refused(server: RabbitMQServer, value: str) -> None:
    with pytest.raises(UrlError, match="upshot_reply_expires"):
        AmqpBackend(Url.parse(f"{server.url}?upshot_reply_expires={value}"))


def test_an_unknown_option_is_refused(server: RabbitMQServer) -> None:
    with pytest.raises(UrlError, match="upshot_reply_expires"):
        AmqpBackend(Url.parse(f"{server.url}?upshot_replies=5"))
