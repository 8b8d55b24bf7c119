"""The MongoDB connections: deadlines, faults, rights, closing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import ConnectionFailure, InvalidOperation, PyMongoError

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ServiceRejectedError, ServiceUnavailableError
from upshot.record import Payload, Record
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.mongo.driver import DRIVER_ERRORS, RefusedError, RefusedForNowError, refusal
from upshot_backends.mongo.results import MongoBackend
from upshot_conformance.concurrency import start
from upshot_conformance.servers import MongoDBServer

Inject = Callable[..., None]
OpenClient = Callable[..., ResultClient]
RecordMaker = Callable[..., StoredRecord]

_PASSWORD = "s3cret-w0rd"
_PATIENCE = 30.0  # seconds


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", body))


def _eventually(look: Callable[[], object]) -> None:
    deadline = Deadline(_PATIENCE)
    while not look():
        assert not deadline.expired, "it did not come true"
        clock.sleep(0.01)


# -- deadlines ------------------------------------------------------------------------------

Hook = Callable[[MongoBackend, StoredRecord, float], object]

_HOOKS: dict[str, Hook] = {
    "store": lambda backend, record, seconds: backend.store([record], seconds),
    "load": lambda backend, record, seconds: backend.load([record.key], seconds),
    "delete": lambda backend, record, seconds: backend.delete([record.key], seconds),
    "scan": lambda backend, record, seconds: list(backend.scan("ns:", seconds)),
    "listen": lambda backend, record, seconds: backend.listen(seconds),
}


@pytest.fixture(scope="module")
def frozen() -> Iterator[tuple[MongoDBServer, MongoBackend]]:
    """A paused server, and a backend that had met it before."""
    with MongoDBServer(replica_set=True) as server:
        backend = MongoBackend(Url.parse(server.url))
        backend.load(["a"], _PATIENCE)
        server.pause()
        yield server, backend
        server.resume()
        backend.close()


@pytest.mark.parametrize("hook", _HOOKS)
@pytest.mark.parametrize("met", [True, False], ids=["met", "new"])
def test_a_frozen_server_ends_each_hook_in_time(
    frozen: tuple[MongoDBServer, MongoBackend], record: RecordMaker, hook: str, met: bool
) -> None:
    server, known = frozen
    url = Url.parse(server.url)
    backend = known if met else MongoBackend(url)
    began = clock.monotonic()

    with pytest.raises(PyMongoError) as failed:
        _HOOKS[hook](backend, record("a"), 0.3)
    assert 0.2 < clock.monotonic() - began < 10.0
    assert isinstance(translate(failed.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    if not met:
        backend.close()


def test_closing_does_not_wait_for_a_frozen_server(fragile: MongoDBServer) -> None:
    backend = MongoBackend(Url.parse(fragile.url))
    backend.load(["a"], _PATIENCE)
    fragile.pause()
    began = clock.monotonic()
    backend.close()

    assert clock.monotonic() - began < 10.0
    fragile.resume()


def test_a_restarted_server_is_found_again(fragile: MongoDBServer) -> None:
    url = Url.parse(fragile.url)
    backend = MongoBackend(url)
    backend.load(["a"], _PATIENCE)
    fragile.kill()

    with pytest.raises(ConnectionFailure) as failed:
        backend.load(["a"], 0.3)
    assert isinstance(translate(failed.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    fragile.restart()
    assert backend.load(["a"], _PATIENCE) == [None]
    backend.close()


def test_a_name_that_nobody_can_resolve_may_be_tried_again() -> None:
    url = Url.parse("mongodb+srv://cluster.upshot.invalid/?connectTimeoutMS=300")
    backend = MongoBackend(url)

    for _ in range(2):
        with pytest.raises(ConnectionFailure) as failed:
            backend.load(["a"], 1.0)
        assert isinstance(translate(failed.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    backend.close()


# -- faults ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty() -> Iterator[MongoDBServer]:
    """A replica set into which faults are injected; each test leaves it healthy."""
    arguments = ["--setParameter", "enableTestCommands=1"]
    with MongoDBServer(replica_set=True, arguments=arguments) as started:
        yield started


@pytest.mark.parametrize(
    "fault",
    [
        {"errorCode": 91},  # ShutdownInProgress
        {"errorCode": 189},  # PrimarySteppedDown
        {"errorCode": 10107},  # NotWritablePrimary
        {"errorCode": 11602},  # InterruptedDueToReplStateChange
        {"errorCode": 262},  # ExceededTimeLimit
        {"errorCode": 14031},  # OutOfDiskSpace
        {"closeConnection": True},
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
        {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},
    ],
    ids=str,
)
def test_a_fault_of_the_moment_is_not_noticed(
    faulty: MongoDBServer,
    driver: Callable[[str], Any],
    open_client: OpenClient,
    inject: Inject,
    fault: dict[str, Any],
) -> None:
    client = open_client(faulty)
    client.store(_finished("first"))
    admin = driver(faulty.url)["admin"]
    commands = ["update", "delete"] if "writeConcernError" in fault else ["update", "find"]

    inject(admin, commands, times=2, **fault)
    assert client.store_many([_finished("first", b"2"), _finished("a")]) == [False, True]
    inject(admin, commands, times=2, **fault)
    assert client.load_many(["first", "a"]) == [_finished("first"), _finished("a")]
    inject(admin, commands, times=2, **fault)
    client.forget(["first", "a"])
    assert client.load_many(["first", "a"]) == [None, None]


def test_a_fault_that_stays_is_shown_as_what_it_is(
    faulty: MongoDBServer,
    driver: Callable[[str], Any],
    open_client: OpenClient,
    inject: Inject,
) -> None:
    client = open_client(faulty, timeout=0.5)
    client.load("a")
    admin = driver(faulty.url)["admin"]

    inject(admin, ["update"], times=1, errorCode=13)
    with pytest.raises(ServiceRejectedError, match="Unauthorized"):
        client.store(_finished("a"))
    inject(admin, ["update"], times=10_000, errorCode=11600)
    with pytest.raises(ServiceUnavailableError, match="failCommand"):
        client.store(_finished("a"))
    admin.command("configureFailPoint", "failCommand", mode="off")


def test_answers_are_told_apart_by_code_and_label() -> None:
    kinds = {
        50: RefusedForNowError,  # MaxTimeMSExpired
        112: RefusedForNowError,  # WriteConflict
        11000: RefusedForNowError,  # DuplicateKey
        8000: RefusedError,  # AtlasError: a bad password
        100: RefusedError,  # UnsatisfiableWriteConcern
        121: RefusedError,  # DocumentValidationFailure
    }

    assert {code: type(refusal({"errmsg": "no", "code": code})) for code in kinds} == kinds
    labelled = refusal({"errmsg": "no", "code": 1, "errorLabels": ["RetryableWriteError"]})
    assert isinstance(labelled, RefusedForNowError)
    assert str(refusal({"errmsg": "no", "code": 1, "codeName": "Internal"})) == "no (Internal)"


def test_a_write_concern_that_cannot_be_met_is_refused(
    server: MongoDBServer, open_client: OpenClient
) -> None:
    client = open_client(f"{server.url}&w=2")

    with pytest.raises(ServiceRejectedError, match="UnsatisfiableWriteConcern"):
        client.store(_finished("a"))
    with pytest.raises(ServiceRejectedError, match="UnsatisfiableWriteConcern"):
        client.store(Record(task_id="b", state="STARTED"))


# -- rights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDBServer]:
    """A replica set that asks for passwords, with nobody in it yet."""
    key: Path = tmp_path_factory.mktemp("key") / "key"
    key.write_text("0123456789abcdef")
    key.chmod(0o400)
    with MongoDBServer(replica_set=True, arguments=["--keyFile", str(key)]) as server:
        yield server


@pytest.fixture(scope="module")
def admin_url(guarded: MongoDBServer) -> str:
    return guarded.url.replace("//", f"//admin:{_PASSWORD}@").replace("?", "?authSource=admin&")


@pytest.fixture(scope="module")
def users(guarded: MongoDBServer, admin_url: str) -> str:
    """Make a superuser, and one that may do everything but open change streams; return its URL."""
    opener: Any = pymongo.MongoClient
    actions = ["find", "insert", "update", "remove", "createIndex", "createCollection"]
    privilege = {"resource": {"db": "upshot", "collection": ""}, "actions": actions}
    with opener(guarded.url) as anybody:  # the first user may be made by anybody
        anybody["admin"].command("createUser", "admin", pwd=_PASSWORD, roles=["root"])
    with opener(admin_url) as superuser:
        admin = superuser["admin"]
        admin.command("createRole", "quiet", privileges=[privilege], roles=[])
        admin.command("createUser", "deaf", pwd=_PASSWORD, roles=["quiet"])
        admin.command("createUser", "powerless", pwd=_PASSWORD, roles=[])
    return admin_url.replace("admin:", "deaf:")


def test_the_right_password_opens(users: str, admin_url: str, open_client: OpenClient) -> None:
    client = open_client(admin_url)

    assert client.store(_finished("a"))
    assert client.wait("a", timeout=_PATIENCE) == _finished("a")
    client.forget(["a"])


def test_who_may_not_open_change_streams_polls(users: str, open_client: OpenClient) -> None:
    client, other = open_client(users), open_client(users)
    waiting = start(lambda: client.wait("a", timeout=100.0))
    _eventually(lambda: client.stats()["keys"])
    other.store(_finished("a"))

    assert waiting.result(_PATIENCE) == _finished("a")
    _eventually(lambda: not client.capabilities.push)
    client.forget(["a"])


@pytest.mark.parametrize("user", ["deaf", "nobody"])
def test_a_wrong_password_is_refused_at_once_and_never_shown(
    users: str, open_client: OpenClient, user: str
) -> None:
    wrong = "wr0ng-w0rd"
    client = open_client(users.replace(f"deaf:{_PASSWORD}", f"{user}:{wrong}"), timeout=600.0)

    with pytest.raises(ServiceRejectedError, match="Authentication failed") as refused:
        client.load("a")
    shown = f"{refused.value} {refused.value!r} {refused.value.__cause__!r} {client!r}"
    assert wrong not in shown


def test_missing_rights_are_refused_at_once(users: str, open_client: OpenClient) -> None:
    client = open_client(users.replace("deaf:", "powerless:"), timeout=600.0)

    with pytest.raises(ServiceRejectedError, match="not authorized"):
        client.load("a")
    with pytest.raises(ServiceRejectedError, match="not authorized"):
        client.store(_finished("a"))


# -- closing --------------------------------------------------------------------------------


def test_a_closed_backend_opens_nothing_any_more(server: MongoDBServer) -> None:
    used, unused = MongoBackend(Url.parse(server.url)), MongoBackend(Url.parse(server.url))
    used.load(["a"], _PATIENCE)
    for backend in (used, unused):
        backend.close()
        backend.close()

        with pytest.raises(InvalidOperation):
            backend.load(["a"], 1.0)
