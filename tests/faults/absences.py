"""Ways in which a service can be away: each is a context, and is over when that is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from tests.endtoend.patience import comes_to
from upshot import clock
from upshot.url import Url
from upshot_conformance.servers import MariaDBServer, PostgreSQLServer, RedisServer, Server

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of sched.h

APP = "app"
"""A user of MariaDB who may use the database and nothing else; and the password."""


@contextlib.contextmanager
def killed(server: Server) -> Generator[None]:
    """SIGKILL, and a start on the same files."""
    server.kill()
    yield
    server.restart()


@contextlib.contextmanager
def terminated(server: Server) -> Generator[None]:
    """An orderly stop, and a start on the same files."""
    polite = signal.SIGTERM if server.stop_signal == signal.SIGKILL else server.stop_signal
    os.kill(server.pid, polite)
    comes_to(lambda: server.running, False)
    yield
    server.restart()


# -- Redis -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def out_of_memory(server: RedisServer) -> Generator[None]:
    """No memory is left for what is written, and nothing is evicted."""
    server.ask("CONFIG", "SET", "maxmemory", "1")
    yield
    server.ask("CONFIG", "SET", "maxmemory", "0")


@contextlib.contextmanager
def read_only(server: RedisServer) -> Generator[None]:
    """It becomes a replica, of a master that is not there."""
    server.ask("REPLICAOF", "127.0.0.1", "1")
    yield
    server.ask("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def unable_to_save(server: RedisServer) -> Generator[None]:
    """Its folder cannot be written to, so its snapshots fail, and it refuses writes: MISCONF."""
    mode = server.folder.stat().st_mode
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.folder.chmod(0o555)
    server.ask("BGSAVE")
    comes_to(lambda: "rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"), True)
    yield
    server.folder.chmod(mode)
    server.ask("CONFIG", "SET", "save", "")


@contextlib.contextmanager
def forbidden(server: RedisServer) -> Generator[None]:
    """The user may not write any more."""
    server.ask("ACL", "SETUSER", "default", "-@write")
    yield
    server.ask("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def crowded(server: RedisServer) -> Generator[None]:
    """Every connection that it allows is somebody else's."""
    server.ask("CONFIG", "SET", "maxclients", "30")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with contextlib.ExitStack() as stack:
        while True:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(b"PING\r\n")
            if not connection.recv(64).startswith(b"+PONG"):
                break
        yield


# -- PostgreSQL ------------------------------------------------------------------------------------

_OTHERS = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'upshot'"


def _administrator(server: PostgreSQLServer) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(server.url, autocommit=True)


@contextlib.contextmanager
def standby(server: PostgreSQLServer) -> Generator[None]:
    """Transactions are read-only, as those of a standby are."""
    with contextlib.closing(_administrator(server)) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        clock.sleep(0.2)  # until every process of the server has read that
        yield
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def locked_out(server: PostgreSQLServer) -> Generator[None]:
    """The user may not log in any more, and was thrown out."""
    with contextlib.closing(_administrator(server)) as connection:
        connection.execute("ALTER ROLE upshot NOLOGIN")
        connection.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}".encode())
        yield
        connection.execute("ALTER ROLE upshot LOGIN")


@contextlib.contextmanager
def full_house(server: PostgreSQLServer) -> Generator[None]:
    """Every connection that it allows is somebody else's."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(_administrator(server)))
        first.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}".encode())
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(contextlib.closing(_administrator(server)))
        yield


# -- MariaDB ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _root(server: MariaDBServer) -> Generator[Any]:
    url = Url.parse(server.url)
    with (
        contextlib.closing(
            pymysql.connect(
                host="127.0.0.1",
                port=server.port,
                user=url.username,
                password=url.password or "",
                autocommit=True,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


def modest_url(server: MariaDBServer) -> str:
    """Make a user whom read-only mode and revoked rights concern; return the URL."""
    with _root(server) as cursor:
        cursor.execute(f"CREATE USER IF NOT EXISTS {APP}@'127.0.0.1' IDENTIFIED BY '{APP}'")
        cursor.execute(f"GRANT ALL ON upshot.* TO {APP}@'127.0.0.1'")
    return f"mariadb://{APP}:{APP}@127.0.0.1:{server.port}/upshot"


@contextlib.contextmanager
def replica(server: MariaDBServer) -> Generator[None]:
    """It is read-only, as a replica is."""
    with _root(server) as cursor:
        cursor.execute("SET GLOBAL read_only = 1")
        yield
        cursor.execute("SET GLOBAL read_only = 0")


@contextlib.contextmanager
def revoked(server: MariaDBServer) -> Generator[None]:
    """The user may not write any more, and has to log in anew."""
    with _root(server) as cursor:
        cursor.execute(f"REVOKE INSERT, UPDATE ON upshot.* FROM {APP}@'127.0.0.1'")
        cursor.execute(f"KILL USER {APP}@'127.0.0.1'")
        yield
        cursor.execute(f"GRANT ALL ON upshot.* TO {APP}@'127.0.0.1'")
        cursor.execute(f"KILL USER {APP}@'127.0.0.1'")


# -- SQLite ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Another process is in a transaction that writes."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def can_mount() -> bool:
    """Tell whether this user may have mounts of its own."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def mount_small_disk(folder: Path) -> None:
    """Mount an empty file system of 8 MB that only this thread sees, and what it starts.

    It is gone with the last of them.

    Raises:
        OSError: this user may not.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "a thread cannot have mounts of its own")
    for command in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)],
    ):
        subprocess.run(command, check=True)


@contextlib.contextmanager
def disk_full(folder: Path) -> Generator[None]:
    """The file system has no byte left; to be used on a small one."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    yield
    ballast.unlink()
