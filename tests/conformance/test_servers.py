"""Private servers start, answer, fail on demand, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from upshot import clock
from upshot_conformance.servers import (
    SERVERS,
    MariaDBServer,
    MongoDBServer,
    PgBouncerServer,
    PostgreSQLServer,
    RedisServer,
    Server,
    ServerError,
)

_HELLO = b"\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"
_BSON = struct.pack("<i", len(_HELLO) + 4) + _HELLO
_OP_MSG = struct.pack("<iiiiib", 21 + len(_BSON), 1, 0, 2013, 0, 0) + _BSON

_PARAMETERS = b"user\0upshot\0database\0postgres\0\0"
_POSTGRESQL_STARTUP = struct.pack("!ii", 8 + len(_PARAMETERS), 196_608) + _PARAMETERS

# What a client says first; whatever comes back shows that somebody is awake.
_FIRST_WORDS = {
    "redis": b"PING\r\n",
    "memcached": b"version\r\n",
    "postgresql": struct.pack("!ii", 8, 80_877_103),  # SSLRequest
    "pgbouncer": struct.pack("!ii", 8, 80_877_103),
    "mariadb": b"",  # the server speaks first
    "rabbitmq": b"AMQP\x00\x00\x09\x01",
    "mongodb": _OP_MSG,
}


def ask(server: Server, words: bytes, *, within: float = 5.0) -> bytes:
    """Send `words` and return the first answer, or nothing if none comes in time."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=within) as connection:
        connection.sendall(words)
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b""


def ask_rudely(server: Server, words: bytes) -> bytes:
    """Like `ask`, for a server that may answer by cutting the connection."""
    try:
        return ask(server, words)
    except ConnectionResetError:
        return b""


def processes_in(folder: Path) -> list[str]:
    """Return the ids of the processes that run in `folder` or were started with its name."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = (process / "cwd").readlink()
            argv = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if cwd.is_relative_to(folder) or os.fsencode(folder) in argv:
            found.append(process.name)
    return found


def my_children() -> set[str]:
    """Return the ids of this thread's own children, those still to be reaped included.

    Other threads of this process may run something else meanwhile.
    """
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(path.read_text(encoding="ascii").split())


@pytest.fixture(scope="module", params=SERVERS, ids=str)
def service(request: pytest.FixtureRequest) -> str:
    """The name of each service in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(service: str) -> Iterator[Server]:
    """One running server of each kind, shared by the tests that leave it running."""
    with SERVERS[service]() as running:
        yield running


def test_a_started_server_answers_on_its_loopback_url(service: str, server: Server) -> None:
    answer = ask(server, _FIRST_WORDS[service])

    assert answer
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert urlsplit(server.url).port == server.port


def test_a_started_server_knows_its_version(server: Server) -> None:
    major, minor, *_ = server.version.split(".")

    assert int(major) >= 1
    assert minor.isdecimal()


def test_a_started_server_does_not_run_as_root_when_it_need_not(server: Server) -> None:
    owner = Path(f"/proc/{server.pid}").stat().st_uid

    assert owner != 0 or not server.drops_root


def test_a_killed_server_comes_back_on_the_same_port(service: str, server: Server) -> None:
    port, pid = server.port, server.pid

    server.kill()

    assert not server.running
    assert processes_in(server.folder) == []
    with pytest.raises(ConnectionRefusedError):
        ask(server, _FIRST_WORDS[service])

    server.restart()

    assert server.port == port
    assert server.pid != pid
    assert ask(server, _FIRST_WORDS[service])


def test_a_paused_server_is_silent_until_it_is_resumed(service: str, server: Server) -> None:
    words = _FIRST_WORDS[service]
    server.pause()
    try:
        silence = ask(server, words, within=0.2)
    finally:
        server.resume()

    assert silence == b""
    assert ask(server, words)


def test_a_pause_freezes_the_children_that_serve_open_connections() -> None:
    with (
        PostgreSQLServer() as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection,
    ):
        # A child that holds the connection answers; it would, too, were only its parent frozen.
        connection.sendall(_FIRST_WORDS["postgresql"])
        refused = connection.recv(1)
        server.pause()
        connection.sendall(_POSTGRESQL_STARTUP)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        server.resume()
        connection.settimeout(5)
        asked_for_password = connection.recv(1)

    assert refused == b"N"  # no TLS
    assert asked_for_password == b"R"


def test_a_stopped_server_leaves_no_process_and_no_folder(service: str, server: Server) -> None:
    children = my_children()
    second = SERVERS[service]()
    second.start()
    folder, port = second.folder, second.port
    assert port != server.port
    assert processes_in(folder)
    assert my_children() > children

    second.pause()  # a frozen server must be stopped all the same, and not by waiting it out
    began = clock.monotonic()
    second.stop()

    assert clock.monotonic() - began < 10.0
    assert my_children() == children
    assert processes_in(folder) == []
    assert not folder.exists()
    assert ask(server, _FIRST_WORDS[service])


def test_a_missing_program_is_named_with_the_way_to_install_it(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = SERVERS[service]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UPSHOT_SERVICES_DIR", str(tmp_path))
    monkeypatch.setattr(kind, "places", ())
    monkeypatch.setattr(kind, "places_before_path", ())

    assert not kind.installed()
    with pytest.raises(ServerError, match=r"is not installed \(no .*\): run `make services`"):
        kind().start()


def test_stop_is_idempotent_and_start_works_again() -> None:
    server = RedisServer()
    server.stop()
    server.start()
    first = server.folder
    server.stop()
    server.stop()

    with server:
        assert server.folder != first
        assert ask(server, b"PING\r\n") == b"+PONG\r\n"


def test_a_server_that_does_not_run_has_no_url_and_no_pid() -> None:
    server = RedisServer()

    with pytest.raises(ServerError, match="not started"):
        _ = server.url
    with pytest.raises(ServerError, match="does not run"):
        _ = server.pid
    with pytest.raises(ServerError, match="not started"):
        server.restart()


def test_starting_twice_is_refused_and_the_first_goes_on() -> None:
    with RedisServer() as server:
        with pytest.raises(ServerError, match="started already"):
            server.start()

        assert ask(server, b"PING\r\n") == b"+PONG\r\n"


def test_a_server_that_ends_early_is_reported_with_its_log() -> None:
    children = my_children()
    server = RedisServer(arguments=["--no-such-directive", "1"])

    with pytest.raises(ServerError, match=r"(?s)ended before it answered.*no-such-directive"):
        server.start()

    assert my_children() == children


class _Mute(Server):
    """A server that starts and never answers."""

    name = "mute"
    programs = ("sleep",)
    how_to_install = "it is part of coreutils"

    @property
    def url(self) -> str:
        return f"mute://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [str(self._required()), "3600"]

    def _answers(self) -> bool:
        return False


def test_a_server_that_never_answers_is_ended_at_the_deadline() -> None:
    children = my_children()

    with pytest.raises(ServerError, match=r"mute did not answer within 0\.2 s"):
        _Mute(start_timeout=0.2).start()

    assert my_children() == children


class _Robbed(RedisServer):
    """A Redis whose first port is taken by somebody else just before it starts."""

    thief: socket.socket | None = None

    def _prepare(self) -> None:
        if self.thief is None:
            self.thief = socket.create_server(("127.0.0.1", self.port))


def test_a_stolen_port_makes_it_start_on_another() -> None:
    with _Robbed() as server:
        assert server.thief is not None
        stolen: int = server.thief.getsockname()[1]
        server.thief.close()

        assert server.port != stolen
        assert ask(server, b"PING\r\n") == b"+PONG\r\n"


def test_redis_with_tls_serves_under_its_own_certificate() -> None:
    with RedisServer(tls=True) as server:
        context = ssl.create_default_context(cafile=str(server.certificate))
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(b"PING\r\n")

            assert connection.recv(16) == b"+PONG\r\n"
        assert server.url.startswith("rediss://")
        assert server.url.endswith(f"?ssl_ca_certs={server.certificate}")
        assert b"PONG" not in ask_rudely(server, b"PING\r\n")


def test_redis_on_a_socket_file_has_no_tcp_port() -> None:
    with RedisServer(unix_socket=True) as server:
        with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
            assert client.set("key", "value")
        with pytest.raises(ConnectionRefusedError):
            ask(server, b"PING\r\n")


@pytest.mark.parametrize(("persistent", "kept"), [(True, b"value"), (False, None)])
def test_redis_keeps_data_across_a_kill_only_when_asked(
    persistent: bool, kept: bytes | None
) -> None:
    with RedisServer(persistent=persistent) as server:
        with redis.Redis(port=server.port) as client:
            client.set("key", "value")
        server.kill()
        server.restart()

        with redis.Redis(port=server.port) as client:
            assert client.get("key") == kept


def test_redis_refuses_tls_on_a_socket_file() -> None:
    with pytest.raises(ValueError, match="choose tls or unix_socket"):
        RedisServer(tls=True, unix_socket=True)


def test_mongodb_as_a_replica_set_is_primary_once_started_and_again_after_a_kill() -> None:
    with MongoDBServer(replica_set=True) as server:
        first = ask(server, _OP_MSG)
        server.kill()
        server.restart()
        second = ask(server, _OP_MSG)

        assert server.url.endswith("?replicaSet=upshot")
    for answer in (first, second):
        assert b"\x02setName\x00\x07\x00\x00\x00upshot\x00" in answer
        assert b"\x08isWritablePrimary\x00\x01" in answer


def test_postgresql_lets_its_url_in_and_nobody_without_the_password() -> None:
    with PostgreSQLServer() as server:
        ask_for_two = ["--no-psqlrc", "--no-password", "-Atc", "select 1 + 1"]
        without = server.url.replace(f":{urlsplit(server.url).password}@", "@")

        allowed = subprocess.run(["psql", server.url, *ask_for_two], capture_output=True, text=True)
        refused = subprocess.run(["psql", without, *ask_for_two], capture_output=True, text=True)

    assert allowed.stdout == "2\n"
    assert "no password supplied" in refused.stderr


def test_pgbouncer_leads_to_its_upstream_and_refuses_a_wrong_password() -> None:
    with PostgreSQLServer() as upstream, PgBouncerServer(upstream.url) as server:
        ask_for_two = ["--no-psqlrc", "--no-password", "-Atc", "select 1 + 1"]
        wrong = server.url.replace(f":{urlsplit(server.url).password}@", ":wrong@")

        allowed = subprocess.run(["psql", server.url, *ask_for_two], capture_output=True, text=True)
        refused = subprocess.run(["psql", wrong, *ask_for_two], capture_output=True, text=True)

    assert allowed.stdout == "2\n"
    assert "authentication failed" in refused.stderr


def test_mariadb_lets_its_url_in_and_not_root_without_a_password() -> None:
    with MariaDBServer() as server:
        parts = urlsplit(server.url)
        at = ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{parts.port}", "-Ne", "select 1 + 1"]
        ours = [f"-u{parts.username}", f"-p{parts.password}", parts.path.removeprefix("/")]

        allowed = subprocess.run([*at, *ours], capture_output=True, text=True)
        refused = subprocess.run([*at, "-uroot"], capture_output=True, text=True)

    assert allowed.stdout == "2\n"
    assert "Access denied" in refused.stderr
