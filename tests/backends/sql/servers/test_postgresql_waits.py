"""LISTEN and NOTIFY: who is woken, what is heard, and where nothing is heard."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Action, Delivery, QueuedMessage, Settlement
from upshot.client import ResultClient
from upshot.errors import ServiceUnavailableError
from upshot.listening import Hint, Listener
from upshot.registry import backend_class
from upshot.url import Url
from upshot_backends.sql.postgresql.broker import PostgresqlBroker
from upshot_backends.sql.postgresql.connection import PostgresqlDatabase
from upshot_backends.sql.postgresql.notifications import Ear, hears
from upshot_backends.sql.postgresql.results import PostgresqlBackend
from upshot_conformance.records import new_id, success
from upshot_conformance.servers import PgBouncerServer, PostgreSQLServer

RecordMaker = Callable[..., StoredRecord]
BackendOpener = Callable[..., PostgresqlBackend]
BrokerOpener = Callable[..., PostgresqlBroker]
PgBouncerOpener = Callable[..., PgBouncerServer]

LONG = 30.0  # seconds for what happens at once on a machine that is not busy


@pytest.fixture
def service() -> str:
    """The only service that these tests are for."""
    return "postgresql"


@pytest.fixture
def listener(backend: PostgresqlBackend) -> Iterator[Listener]:
    opened = backend.listen(LONG)
    assert opened is not None
    yield opened
    opened.close()


@pytest.fixture
def raw(postgresql_server: PostgreSQLServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The driver itself, in autocommit mode."""
    with psycopg.connect(postgresql_server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def start_pgbouncer(postgresql_server: PostgreSQLServer) -> Iterator[PgBouncerOpener]:
    """Starts proxies before the common server."""
    started: list[PgBouncerServer] = []

    def start(pool_mode: str, *settings: str) -> PgBouncerServer:
        server = PgBouncerServer(postgresql_server.url, pool_mode=pool_mode, settings=settings)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def hear(listener: Listener) -> list[Hint]:
    """Wait until something is heard."""
    deadline = clock.Deadline(LONG)
    while not deadline.expired:
        hints = list(listener.wait(deadline.left() or 0.0))
        if hints:
            return hints
    return []


def message(message_id: str, queue: str = "q", eta: float | None = None) -> QueuedMessage:
    return QueuedMessage(message_id=message_id, queue=queue, body=b"", eta=eta)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after thirty seconds."""
    deadline = clock.Deadline(LONG)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.01)


def is_listening(raw: psycopg.Connection[tuple[Any, ...]], channel: str) -> bool:
    """Tell whether the last statement of any connection was to listen on a channel."""
    last = raw.execute("SELECT query FROM pg_stat_activity WHERE query ~ '^(UN)?LISTEN '")
    return (f'LISTEN "{channel}"',) in last.fetchall()


# -- results --------------------------------------------------------------------------------------


def test_a_terminal_record_is_heard_of_and_no_other(
    backend: PostgresqlBackend, listener: Listener, record: RecordMaker
) -> None:
    listener.subscribe(["a", "b", "c"])
    backend.store([record("x"), record("a", rank=1, barrier=1)], 10.0)
    backend.store([record("b")], 10.0)

    assert hear(listener) == [Hint("b")]


def test_a_record_that_is_refused_is_not_heard_of(
    backend: PostgresqlBackend, record: RecordMaker
) -> None:
    backend.store([record("a")], 10.0)
    listener = backend.listen(LONG)
    assert listener is not None
    listener.subscribe(["a", "b"])
    assert backend.store([record("a")], 10.0) == [False]
    backend.store([record("b")], 10.0)

    assert hear(listener) == [Hint("b")]
    listener.close()


def test_a_deleted_record_is_heard_of_whether_it_was_there_or_not(
    backend: PostgresqlBackend, listener: Listener
) -> None:
    listener.subscribe(["a"])
    backend.delete(["x", "a"], 10.0)

    assert hear(listener) == [Hint("a", b"")]


def test_keys_of_any_length_and_kind_are_heard_of(
    backend: PostgresqlBackend, listener: Listener, record: RecordMaker
) -> None:
    keys = ["x" * 1024, "ä" * 512, "-", "=a", "'; NOTIFY x", '"', "%s", " "]
    listener.subscribe(keys)
    backend.store([record(key) for key in keys], 10.0)

    heard: list[Hint] = []
    while len(heard) < len(keys):
        heard += hear(listener)
    assert sorted(heard) == sorted(Hint(key) for key in keys)


def test_what_others_say_on_the_channel_is_ignored(
    backend: PostgresqlBackend,
    listener: Listener,
    record: RecordMaker,
    raw: psycopg.Connection[tuple[Any, ...]],
) -> None:
    listener.subscribe(["a", ""])
    channel = backend.database.schema.prefix + "results"
    for payload in ("", "=", "nonsense", "=unknown", "-"):
        raw.execute("SELECT pg_notify(%s, %s)", [f"public.{channel}", payload])
    backend.store([record("a")], 10.0)

    heard: list[Hint] = []
    while Hint("a") not in heard:
        heard += hear(listener)
    assert {hint.key for hint in heard} <= {"a", ""}


def test_a_connection_listens_only_while_somebody_waits(
    backend: PostgresqlBackend,
    listener: Listener,
    record: RecordMaker,
    raw: psycopg.Connection[tuple[Any, ...]],
) -> None:
    channel = f"public.{backend.database.schema.prefix}results"
    listener.subscribe(["a", "b"])
    listener.unsubscribe(["a"])
    before = is_listening(raw, channel)
    listener.unsubscribe(["b"])
    between = is_listening(raw, channel)
    listener.subscribe(["c"])
    after = is_listening(raw, channel)
    backend.store([record("c")], 10.0)

    assert (before, between, after) == (True, False, True)
    assert hear(listener) == [Hint("c")]


def test_a_lost_connection_is_an_error_of_the_wait(
    backend: PostgresqlBackend, listener: Listener, raw: psycopg.Connection[tuple[Any, ...]]
) -> None:
    listener.subscribe(["a"])
    channel = f"public.{backend.database.schema.prefix}results"
    raw.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = %s",
        [f'LISTEN "{channel}"'],
    )

    with pytest.raises(ServiceUnavailableError):
        hear(listener)


def test_a_connection_that_was_lost_while_nobody_waited_is_replaced(
    backend: PostgresqlBackend,
    listener: Listener,
    record: RecordMaker,
    raw: psycopg.Connection[tuple[Any, ...]],
) -> None:
    listener.subscribe(["a"])
    listener.unsubscribe(["a"])
    raw.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND query LIKE 'UNLISTEN %'"
    )
    listener.subscribe(["b"])
    backend.store([record("b")], 10.0)

    assert hear(listener) == [Hint("b")]


def test_an_interrupt_ends_a_wait_that_runs_and_the_next_one_otherwise(
    listener: Listener,
) -> None:
    began = clock.monotonic()
    listener.interrupt()
    listener.wait(10 * LONG)
    timer = threading.Timer(0.1, listener.interrupt)
    timer.start()
    listener.wait(10 * LONG)
    timer.join()

    assert clock.monotonic() - began < 10 * LONG


def test_a_result_that_came_while_the_connection_was_cut_is_found(
    backend: PostgresqlBackend,
    record: RecordMaker,
    url: str,
    raw: psycopg.Connection[tuple[Any, ...]],
) -> None:
    parsed, found = Url.parse(url), list[object]()
    with ResultClient(lambda: backend_class(parsed)(parsed), url=parsed, namespace="ns") as client:
        task_id = new_id()
        thread = threading.Thread(target=lambda: found.append(client.wait(task_id, timeout=60.0)))
        thread.start()
        eventually(lambda: client.stats()["listeners"] == 1)
        raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        client.store(success(task_id, 1))
        thread.join()

    assert len(found) == 1


def test_ten_thousand_ids_are_awaited_on_one_connection(
    url: str, raw: psycopg.Connection[tuple[Any, ...]]
) -> None:
    parsed, ids = Url.parse(url), [new_id() for _ in range(10_000)]
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ((before,),) = raw.execute(count).fetchall()
    found: list[str] = []
    with (
        ResultClient(lambda: backend_class(parsed)(parsed), url=parsed, namespace="ns") as waiting,
        ResultClient(lambda: backend_class(parsed)(parsed), url=parsed, namespace="ns") as storing,
    ):
        thread = threading.Thread(
            target=lambda: found.extend(key for key, _ in waiting.wait_many(ids, timeout=90.0))
        )
        thread.start()
        eventually(lambda: waiting.stats()["listeners"] == 1)
        for start in range(0, 10_000, 500):
            storing.store_many([success(task_id, 1) for task_id in ids[start : start + 500]])
        ((during,),) = raw.execute(count).fetchall()
        thread.join()

    assert sorted(found) == sorted(ids)
    assert during - before <= 4  # for each client one to read or write; the listener; one spare


# -- messages -------------------------------------------------------------------------------------


class Waiter:
    """A fetch that waits, in a thread."""

    def __init__(self, broker: PostgresqlBroker, *queues: str) -> None:
        self.got: list[Delivery] = []
        self._broker = broker
        self._queues = queues
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        self.got += self._broker.fetch(
            self._queues, limit=1, wait=2 * LONG, lease=60.0, worker=f"w-{self._queues}"
        )

    def join(self) -> list[str]:
        """Return the ids of what was fetched."""
        self._thread.join()
        return [delivery.message_id for delivery in self.got]


def test_a_fetch_that_waits_listens_and_one_that_is_over_does_not(
    broker: PostgresqlBroker,
    open_broker: BrokerOpener,
    raw: psycopg.Connection[tuple[Any, ...]],
) -> None:
    waiting = open_broker()
    broker.survey(["q"], 10.0)
    channel = f"public.{broker.database.schema.prefix}messages"
    waiter = Waiter(waiting, "q")
    eventually(lambda: is_listening(raw, channel))
    broker.publish([message("a")], (), 10.0)

    assert waiter.join() == ["a"]
    assert not is_listening(raw, channel)


@pytest.mark.parametrize("how", ["released", "replaced", "delayed"])
def test_whatever_makes_a_message_ready_wakes_who_waits(
    broker: PostgresqlBroker,
    open_broker: BrokerOpener,
    raw: psycopg.Connection[tuple[Any, ...]],
    how: str,
) -> None:
    waiting = open_broker()
    broker.publish([message("a")], (), 10.0)
    (held,) = broker.fetch(["q"], limit=1, wait=0.0, lease=600.0, worker="w")
    waiter = Waiter(waiting, "q")
    eventually(lambda: is_listening(raw, f"public.{broker.database.schema.prefix}messages"))
    if how == "released":
        broker.settle([Settlement(delivery=held, action=Action.RELEASE)], 10.0)
    elif how == "replaced":
        ended = Settlement(delivery=held, action=Action.REPLACE, message=message("a"))
        broker.settle([ended], 10.0)
    else:
        broker.publish([message("a, later", eta=clock.now() + 0.2)], (), 10.0)

    assert waiter.join() == ["a, later" if how == "delayed" else "a"]


def test_a_payload_is_short_for_a_queue_of_any_name(
    broker: PostgresqlBroker, open_broker: BrokerOpener
) -> None:
    name = "'%s\\" * 500
    waiter = Waiter(open_broker(), "other", name)
    broker.publish([message("a", queue=name)], (), 10.0)

    assert waiter.join() == ["a"]


# -- channels -------------------------------------------------------------------------------------


def test_a_schema_named_in_the_url_has_the_channel_that_it_has_without(
    open_backend: BackendOpener, url: str, record: RecordMaker
) -> None:
    storing, waiting = open_backend(url), open_backend(f"{url}&upshot_schema=public")
    listener = waiting.listen(LONG)
    assert listener is not None
    listener.subscribe(["a"])
    storing.store([record("a")], 10.0)

    assert hear(listener) == [Hint("a")]
    listener.close()


@pytest.mark.parametrize("name", ['tenant "%s" ä', "x" * 63])
def test_a_schema_of_any_name_holds_tables_and_has_a_channel(
    open_backend: BackendOpener,
    url: str,
    record: RecordMaker,
    raw: psycopg.Connection[tuple[Any, ...]],
    name: str,
) -> None:
    raw.execute('DROP SCHEMA IF EXISTS "{}" CASCADE'.format(name.replace('"', '""')).encode())
    raw.execute('CREATE SCHEMA "{}"'.format(name.replace('"', '""')).encode())
    quoted = name.replace("%", "%25").replace(" ", "%20")
    there, plain = open_backend(f"{url}&upshot_schema={quoted}"), open_backend(url)
    listener = there.listen(LONG)
    assert listener is not None
    listener.subscribe(["a"])
    plain.store([record("a", b"public")], 10.0)

    assert there.store([record("a", b"tenant")], 10.0) == [True]
    assert hear(listener) == [Hint("a")]
    assert (plain.load(["a"], 10.0), there.load(["a"], 10.0)) == ([b"public"], [b"tenant"])
    listener.close()


# -- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_robin", [0, 1])
def test_through_a_pool_of_transactions_waiters_poll_and_the_capability_is_withdrawn(
    start_pgbouncer: PgBouncerOpener,
    open_backend: BackendOpener,
    open_broker: BrokerOpener,
    record: RecordMaker,
    prefix: str,
    round_robin: int,
) -> None:
    proxy = start_pgbouncer("transaction", f"server_round_robin = {round_robin}")
    url = f"{proxy.url}?upshot_table_prefix={prefix}"
    backend, broker = open_backend(url), open_broker(url)
    threads = [threading.Thread(target=backend.load, args=(["a"], LONG)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = backend.capabilities.push

    assert backend.listen(LONG) is None
    assert (before, backend.capabilities.push) == (True, False)
    waiter = Waiter(broker, "q")
    open_broker(url).publish([message("a")], [record("a", rank=1, barrier=1)], 10.0)
    assert waiter.join() == ["a"]
    for number in range(20):  # more often than a statement is run before it would be prepared
        assert backend.store([record(f"{number}")], 10.0) == [True]
        assert backend.load([f"{number}", "a"], 10.0) == [b"body", b"body"]


def test_through_a_pool_of_sessions_waiters_listen(
    start_pgbouncer: PgBouncerOpener, postgresql_server: PostgreSQLServer
) -> None:
    database = PostgresqlDatabase(Url.parse(start_pgbouncer("session").url))
    connection = database.dedicate(LONG)

    heard = _tries(lambda: hears(database, connection, LONG))

    assert heard
    assert connection.descriptor >= 0
    database.give_back(connection)
    database.close()


def _tries(probe: Callable[[], bool]) -> bool:
    """Try more than once what takes a notification that is a second late for one that is lost."""
    return any(probe() for _ in range(5))


def test_whoever_says_that_listening_does_not_work_is_believed(
    open_backend: BackendOpener, open_broker: BrokerOpener, url: str
) -> None:
    backend, broker = (
        open_backend(f"{url}&upshot_listen=no"),
        open_broker(f"{url}&upshot_listen=no"),
    )
    waiter = Waiter(broker, "q")
    open_broker().publish([message("a")], (), 10.0)

    assert not backend.capabilities.push
    assert backend.listen(LONG) is None
    assert waiter.join() == ["a"]


def test_an_ear_gives_back_its_connection(
    url: str, raw: psycopg.Connection[tuple[Any, ...]]
) -> None:
    database = PostgresqlDatabase(Url.parse(url))
    ear = Ear(database, f'c{uuid.uuid4().hex} "')
    count = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN \"c'"
    assert ear.listen(LONG)
    during = raw.execute(count).fetchall()

    ear.close()
    ear.close()

    assert not ear.listens
    assert during == [(1,)]
    eventually(lambda: raw.execute(count).fetchall() == [(0,)])
    database.close()
