"""Servers that freeze, die, restart and refuse; processes that fork."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

from upshot import clock
from upshot.backend import Backend, StoredRecord
from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot.client import ResultClient
from upshot.errors import (
    ServiceClosedError,
    ServiceRejectedError,
    ServiceUnavailableError,
)
from upshot.registry import backend_class, broker_class
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.sql.broker import SqlBroker
from upshot_backends.sql.results import SqlBackend
from upshot_conformance.records import new_id, success
from upshot_conformance.servers import MariaDBServer, PostgreSQLServer, Server

BackendOpener = Callable[..., SqlBackend]
BrokerOpener = Callable[..., SqlBroker]
RecordMaker = Callable[..., StoredRecord]
Run = Callable[..., list[tuple[object, ...]]]
Connect = Callable[..., Run]

PROGRAMS = Path(__file__).parents[2] / "programs"
LATE = 10.0  # seconds by which a call may be late on a machine that is busy; frozen ones never end


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after thirty seconds."""
    deadline = clock.Deadline(30.0)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.01)


def store(service: OpenService[Backend], record: StoredRecord) -> bool:
    """Store a record with retries, as clients do."""
    return service.call(lambda backend, seconds: backend.store([record], seconds))[0]


def load(service: OpenService[Backend], key: str) -> bytes | Exception | None:
    """Load a record with retries, as clients do."""
    return service.call(lambda backend, seconds: backend.load([key], seconds))[0]


def kill_connections(run: Run, service: str) -> None:
    """End every connection to the server but this one."""
    if service == "postgresql":
        run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return
    others = run("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()")
    for (number,) in others:
        with contextlib.suppress(pymysql.err.Error):  # it ended meanwhile
            run(f"KILL {number}")


# -- frozen ---------------------------------------------------------------------------------------

Hook = Callable[[SqlBackend, SqlBroker, StoredRecord, float], object]

_DELIVERY = Delivery(message_id="m", queue="q", body=b"", deliveries=1, token="t")
_MESSAGE = QueuedMessage(message_id="m", queue="q", body=b"")
_HOOKS: dict[str, Hook] = {
    "store": lambda backend, _, record, seconds: backend.store([record], seconds),
    "store many": lambda backend, _, record, seconds: backend.store([record] * 2, seconds),
    "store much": lambda backend, _, record, seconds: backend.store(
        [record, record._replace(body=bytes(8 * 2**20))], seconds
    ),
    "load": lambda backend, _, record, seconds: backend.load([record.key], seconds),
    "delete": lambda backend, _, record, seconds: backend.delete([record.key], seconds),
    "scan": lambda backend, _, record, seconds: list(backend.scan("ns:", seconds)),
    "sweep": lambda backend, _, record, seconds: backend.sweep(1000, seconds),
    "listen": lambda backend, _, record, seconds: listen(backend, seconds),
    "publish": lambda _, broker, record, seconds: broker.publish([_MESSAGE], [record], seconds),
    "settle": lambda _, broker, record, seconds: broker.settle(
        [Settlement(delivery=_DELIVERY)], seconds
    ),
    "beat": lambda _, broker, record, seconds: broker.beat(
        "w", ["q"], [_DELIVERY], lease=1.0, timeout=seconds
    ),
    "survey": lambda _, broker, record, seconds: broker.survey(["q"], seconds),
    "purge": lambda _, broker, record, seconds: broker.purge(["q"], seconds),
}


def open_both(url: Url) -> tuple[SqlBackend, SqlBroker]:
    """Open a backend and a broker; connects to nothing."""
    backend, broker = backend_class(url)(url), broker_class(url)(url, "ns")
    assert isinstance(backend, SqlBackend)
    assert isinstance(broker, SqlBroker)
    return backend, broker


def listen(backend: SqlBackend, seconds: float) -> None:
    """Open a push connection; where there is no push, read."""
    listener = backend.listen(seconds)
    if listener is None:
        backend.load(["a"], seconds)
    else:
        listener.close()


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def frozen(request: pytest.FixtureRequest) -> Iterator[tuple[Server, SqlBackend, SqlBroker]]:
    """A paused server, with connections in each pool that were made before the pause."""
    kind = PostgreSQLServer if request.param == "postgresql" else MariaDBServer
    with kind() as server:
        url = Url.parse(server.url)
        backend, broker = open_both(url)
        server.pause()
        yield server, backend, broker
        server.resume()
        backend.close()
        broker.close()


@pytest.mark.parametrize("hook", _HOOKS)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "new"])
def test_a_frozen_server_ends_each_hook(
    frozen: tuple[Server, SqlBackend, SqlBroker], record: RecordMaker, hook: str, pooled: bool
) -> None:
    server, backend, broker = frozen
    if pooled:  # each call spends the connection that it has
        server.resume()
        backend.load(["a"], 30.0)
        broker.survey(["q"], 30.0)
        server.pause()
    else:
        url = Url.parse(server.url)
        backend, broker = open_both(url)
    began = clock.monotonic()

    with pytest.raises(ServiceUnavailableError):
        _HOOKS[hook](backend, broker, record("a"), 0.5)
    assert 0.4 <= clock.monotonic() - began <= 0.5 + LATE
    if not pooled:
        backend.close()
        broker.close()


def test_sixteen_threads_that_open_a_frozen_server_all_end_in_time(
    frozen: tuple[Server, SqlBackend, SqlBroker],
) -> None:
    server, _, _ = frozen
    url = Url.parse(server.url)
    backend = backend_class(url)(url)
    ended: list[BaseException] = []

    def load() -> None:
        try:
            backend.load(["a"], 1.0)
        except ServiceUnavailableError as exc:
            ended.append(exc)

    threads = [threading.Thread(target=load) for _ in range(16)]
    began = clock.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ended) == 16
    assert clock.monotonic() - began < 1.0 + LATE
    backend.close()


def test_closing_does_not_wait_for_a_frozen_server(
    frozen: tuple[Server, SqlBackend, SqlBroker],
) -> None:
    server, _, _ = frozen
    server.resume()
    opened, _ = open_both(Url.parse(server.url))
    opened.load(["a"], 30.0)
    server.pause()
    began = clock.monotonic()

    opened.close()

    assert clock.monotonic() - began < LATE
    with pytest.raises(ServiceClosedError):
        opened.load(["a"], 1.0)


# -- gone -----------------------------------------------------------------------------------------


def test_killed_connections_are_replaced_after_one_error(
    backend: SqlBackend, run: Run, service: str
) -> None:
    threads = [threading.Thread(target=backend.load, args=(["a"], 30.0)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kill_connections(run, service)

    with pytest.raises(ServiceUnavailableError):
        backend.load(["a"], 10.0)
    assert backend.load(["a"], 10.0) == [None]


def test_a_killed_connection_is_not_noticed_above_the_retry_layer(
    url: str, run: Run, service: str
) -> None:
    parsed = Url.parse(url)
    opened = OpenService(lambda: backend_class(parsed)(parsed), url=parsed, timeout=30.0)
    opened.call(lambda backend, seconds: backend.load(["a"], seconds))
    kill_connections(run, service)

    assert opened.call(lambda backend, seconds: backend.load(["a"], seconds)) == [None]
    opened.close()


def test_a_wait_outlives_a_server_that_is_killed_and_comes_back(fragile: Server) -> None:
    url, found = Url.parse(fragile.url), list[object]()
    with (
        ResultClient(lambda: backend_class(url)(url), url=url, namespace="ns") as waiting,
        ResultClient(lambda: backend_class(url)(url), url=url, namespace="ns") as storing,
    ):
        task_id, before = new_id(), new_id()
        storing.store(success(before, 1))
        thread = threading.Thread(target=lambda: found.append(waiting.wait(task_id, timeout=90.0)))
        thread.start()
        eventually(lambda: waiting.stats()["waiters"] == 1)
        fragile.kill()
        clock.sleep(0.2)  # some of the wait happens while nobody is there
        fragile.restart()
        storing.store(success(task_id, 2))
        thread.join()

        assert len(found) == 1
        assert waiting.load(before) is not None  # what was confirmed is there


def test_a_fetch_that_waits_is_woken_after_its_connections_were_killed(
    open_broker: BrokerOpener, run: Run, service: str
) -> None:
    waiting, publishing, got = open_broker(), open_broker(), list[Delivery]()
    publishing.survey(["q"], 30.0)

    def work() -> None:
        deadline = clock.Deadline(60.0)
        while not got and not deadline.expired:
            try:
                got.extend(waiting.fetch(["q"], limit=1, wait=20.0, lease=60.0, worker="w"))
            except ServiceUnavailableError:
                continue

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: publishing.survey(["q"], 30.0)["q"].workers == ("w",))
    kill_connections(run, service)
    service_of = OpenService(lambda: publishing, url=publishing.database.url, timeout=30.0)
    service_of.call(lambda broker, seconds: broker.publish([_MESSAGE], (), seconds))
    thread.join()

    assert [delivery.message_id for delivery in got] == ["m"]


def test_close_ends_a_waiting_fetch(open_broker: BrokerOpener) -> None:
    broker, looking, ended = open_broker(), open_broker(), list[BaseException]()

    def work() -> None:
        try:
            broker.fetch(["q"], limit=1, wait=60.0, lease=60.0, worker="w")
        except ServiceClosedError as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: looking.survey(["q"], 30.0)["q"].workers == ("w",))
    broker.close()
    thread.join(30.0)

    assert len(ended) == 1


# -- refusing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["password", "database", "user"])
def test_what_the_server_refuses_is_refused_at_once_and_the_password_is_not_shown(
    server: Server, open_backend: BackendOpener, wrong: str, service: str
) -> None:
    user, _, rest = server.url.partition("://")[2].partition(":")
    password, _, place = rest.partition("@")
    host, _, database = place.partition("/")
    if wrong == "password":
        password = "s3cret-w0rd"
    elif wrong == "user":
        user = "nobody-of-that-name"
    else:
        database = "no_such_database"
    backend = open_backend(f"{service}://{user}:{password}@{host}/{database}")

    with pytest.raises(ServiceRejectedError) as refused:
        backend.load(["a"], 30.0)
    assert password not in f"{refused.value!r} {refused.value.__cause__!r} {backend.database.url!r}"


def test_a_server_that_is_not_there_is_unavailable_at_once(
    service: str, open_backend: BackendOpener
) -> None:
    backend = open_backend(f"{service}://upshot:pw@127.0.0.1:1/upshot")

    with pytest.raises(ServiceUnavailableError):
        backend.load(["a"], 30.0)


def test_the_next_host_of_a_list_is_tried(
    open_backend: BackendOpener, url: str, record: RecordMaker
) -> None:
    backend = open_backend(url.replace("@", "@127.0.0.1:1,", 1))

    assert backend.store([record("a")], 30.0) == [True]


def test_a_row_that_somebody_holds_locked_is_trouble_that_passes(
    backend: SqlBackend, record: RecordMaker, connect: Connect, url: str, prefix: str
) -> None:
    backend.store([record("a", rank=1, barrier=1), record("b", rank=1, barrier=1)], 10.0)
    holder = connect(url)
    holder("BEGIN")
    holder(f"UPDATE {prefix}results SET stored_at = 0")

    for batch in ([record("a")], [record("a"), record("a")]):
        began = clock.monotonic()
        with pytest.raises(ServiceUnavailableError):
            backend.store(batch, 1.0)
        assert clock.monotonic() - began < 1.0 + LATE
    holder("ROLLBACK")
    assert backend.store([record("b")], 30.0) == [True]


# -- forks ----------------------------------------------------------------------------------------


def test_a_forked_child_and_its_parent_do_not_disturb_each_other(
    url: str, record: RecordMaker
) -> None:
    parsed = Url.parse(url)
    service = OpenService(lambda: backend_class(parsed)(parsed), url=parsed, timeout=30.0)
    stop = threading.Event()
    wrong: list[str] = []

    def work(number: int) -> None:
        key = f"parent-{number}"
        store(service, record(key, key.encode()))
        while not stop.is_set():
            found = load(service, key)
            if found != key.encode():
                wrong.append(f"{key}: {found!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    codes: list[int] = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                key = f"child-{number}"
                store(service, record(key, key.encode()))
                code = 0 if load(service, key) == key.encode() else 2
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    service.close()

    assert codes == [0] * 8
    assert wrong == []


def test_a_child_does_not_keep_the_locks_of_a_parent_that_was_killed(
    backend: SqlBackend, url: str, record: RecordMaker
) -> None:
    backend.store([record("held", rank=1, barrier=1)], 10.0)
    command = [sys.executable, str(PROGRAMS / "die_in_a_transaction.py"), url, "held"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    try:
        service = OpenService(lambda: backend, url=backend.database.url, timeout=60.0)
        stored = service.call(lambda one, seconds: one.store([record("held")], 5.0))
    finally:
        os.kill(child, signal.SIGKILL)

    assert stored == [True]
