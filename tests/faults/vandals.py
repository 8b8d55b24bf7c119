"""Writes into a service what upshot would never write there, with the service's own client.

One function per service: `name(url, key)` yields what is done to the record under `key`, in words,
and the deed. The record is there before. Whatever the service itself refuses is not in the list.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

import psycopg
import pymongo
import pymysql
import redis

from upshot.url import Url

__all__ = ["VANDALS", "Deed", "Vandal"]

Deed: TypeAlias = Callable[[], object]
Vandal: TypeAlias = Callable[[Url, str], Iterator[tuple[str, Deed]]]

_GARBAGE: Final = b"\xff\x00garbage"
_NEVER: Final = 2**31 - 1
_SQL_VALUES: Final[Mapping[str, object]] = {
    "text": "text", "an integer": 5, "a float": 1.5, "empty bytes": b"", "garbage": _GARBAGE,
}  # fmt: skip


def _sqlite(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    def run(statement: str, *values: object) -> None:
        with contextlib.closing(sqlite3.connect(unquote(url.path[1:]))) as file, file:
            file.execute(statement, values)

    update = "UPDATE upshot_results SET {} = ? WHERE key = ?"  # SQLite takes any type anywhere
    for column in ("body", "barrier", "expires_at", "stored_at", "state", "task_id"):
        for what, value in _SQL_VALUES.items():
            yield f"{column} is {what}", partial(run, update.format(column), value, key)
    other = "UPDATE upshot_results SET key = CAST(X'ff' AS {}) WHERE key = ?"
    yield "a key that is no text", lambda: run(other.format("BLOB"), key)
    yield "a key of broken text", lambda: run(other.format("TEXT"), key)


def _postgresql(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    def run(statement: str, *values: object) -> None:
        with psycopg.connect(url.driver_url(), autocommit=True) as connection:
            connection.execute(statement, values)  # type: ignore[arg-type, unused-ignore]  # pyright: ignore

    for what, value in {"empty": b"", "garbage": _GARBAGE}.items():
        update = "UPDATE upshot_results SET body = %s WHERE key = %s"
        yield f"body is {what}", partial(run, update, value, key)
    for number in ("'NaN'", "'Infinity'", "'-Infinity'", "1e308"):
        update = f"UPDATE upshot_results SET expires_at = {number} WHERE key = %s"
        yield f"it expires at {number}", partial(run, update, key)
    yield (
        "a key of other letters",
        lambda: run("UPDATE upshot_results SET key = E'\\u202e\\x1b' WHERE key = %s", key),
    )


def _mariadb(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    host, port = url.hosts[0]

    def run(statement: str, *values: object) -> None:
        with pymysql.connect(
            host=host,
            port=port or 3306,
            user=url.username,
            password=url.password or "",
            database=url.path[1:],
            autocommit=True,
        ) as connection:
            connection.cursor().execute(statement, values)

    for what, value in {"empty": b"", "garbage": _GARBAGE}.items():
        update = "UPDATE upshot_results SET body = %s WHERE `key` = %s"
        yield f"body is {what}", partial(run, update, value, key)
    yield (
        "it expires in the year 1e300",
        lambda: run("UPDATE upshot_results SET expires_at = 1e300 WHERE `key` = %s", key),
    )
    yield (
        "a key that is no text",
        lambda: run("UPDATE upshot_results SET `key` = CONCAT(`key`, X'ff') WHERE `key` = %s", key),
    )


def _redis(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    def over(*command: Any) -> None:
        server: Any = cast("Any", redis.Redis).from_url(url.driver_url())
        with server:
            server.delete(key)
            server.execute_command(*command)

    for what, value in {
        "empty": b"", "short": b"x", "without a barrier": _GARBAGE * 3,
        "with a barrier of nan": b"       nan" + _GARBAGE,
        "with a barrier of 1e999": b"     1e999x",
        "negative": b"-000000001x", "hexadecimal": b"0x7fffffffx",
    }.items():  # fmt: skip
        yield f"a string, {what}", partial(over, "SET", key, value)
    yield "a list", lambda: over("LPUSH", key, "x")
    yield "a hash", lambda: over("HSET", key, "a", "b")
    yield "a set", lambda: over("SADD", key, "x")
    yield "a stream", lambda: over("XADD", key, "*", "a", "b")
    prefix = key.rpartition(":")[0].encode()
    yield "a key that is no text", lambda: over("SET", prefix + b":\xff\xfe", "x")


def _mongo(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    def change(update: Mapping[str, Any]) -> None:
        client: Any = cast("Any", pymongo.MongoClient)(url.driver_url())
        with client:
            for name in client.list_database_names():
                for collection in set(client[name].list_collection_names()) - {"system.views"}:
                    if name not in ("admin", "local", "config"):
                        client[name][collection].update_one({"_id": key}, update)

    values: dict[str, Any] = {
        "text": "x", "a number": 5, "null": None, "a list": [b"x"], "an operator": {"$gt": ""},
        "a document": {"a": {"b": 1}}, "true": True, "garbage": _GARBAGE,
    }  # fmt: skip
    for field in ("body", "barrier", "expires_at", "ended_at", "forgotten"):
        for what, value in values.items():
            # `$literal`: otherwise the server would run the operator itself
            pipeline: Any = [{"$set": {field: {"$literal": value}}}]
            yield f"{field} is {what}", partial(change, pipeline)
    yield "no body", lambda: change({"$unset": {"body": ""}})


def _memcached(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    def put(value: bytes, flags: int = 0) -> None:
        host, port = url.hosts[0]
        with socket.create_connection((host, port or 11211), timeout=10) as line:
            line.sendall(b"set %b %d 0 %d\r\n%b\r\n" % (key.encode(), flags, len(value), value))
            assert line.recv(100) == b"STORED\r\n"

    moment = b"\x7f\xf0" + b"\0" * 6
    barrier = _NEVER.to_bytes(4, "big")
    for what, value in {
        "empty": b"", "short": b"upW1", "garbage": _GARBAGE,
        "a record without an end": b"upW1" + barrier + moment,
        "a moment that is no number": b"upW1" + barrier + b"\x7f\xf8" + b"\0" * 6 + b"x",
        "parts of nothing": b"upP1" + barrier + moment + b"A" * 16 + b"\0" * 16,
        "2^64 parts": b"upP1" + barrier + moment + b"A" * 16 + b"\xff" * 16,
        "parts that are commands": b"upP1" + barrier + moment + b"\r\nflush_all\r\nxxx"
        + (100).to_bytes(8, "big") + (2**20).to_bytes(4, "big") + b"\0" * 4,
        "END in the middle": b"END\r\nSTORED\r\n",
    }.items():  # fmt: skip
        yield what, partial(put, value)
    yield "odd flags", lambda: put(_GARBAGE, 2**32 - 1)


def _rpc(url: Url, key: str) -> Iterator[tuple[str, Deed]]:
    from upshot_backends.amqp import office

    pika: Any = importlib.import_module("pika")  # it has no type hints

    def say(headers: dict[str, Any] | None, body: bytes = _GARBAGE, **properties: Any) -> None:
        address = next(iter(vars(office)["_OFFICES"].open.values())).address
        line = pika.BlockingConnection(
            pika.URLParameters(url.driver_url("amqp").rstrip("/") + "/%2F")
        )
        with contextlib.closing(line):
            channel = line.channel()
            channel.confirm_delivery()
            sent = pika.BasicProperties(headers=headers, **properties)
            channel.basic_publish("", address, body, sent)

    yield "no headers", lambda: say(None)
    yield (
        "headers of other types",
        lambda: say({"upshot-key": 5, "upshot-rank": "x", "upshot-barrier": [1, {"a": True}]}),
    )
    own = {"upshot-key": key, "upshot-rank": 2**31, "upshot-barrier": _NEVER}
    yield "garbage, as if it were the end", lambda: say(own)
    yield "a rank of 2^62", lambda: say(own | {"upshot-rank": 2**62})
    yield "it never was", lambda: say(own | {"upshot-expires": 0})
    yield "it expires in 2^62 milliseconds", lambda: say(own | {"upshot-expires": 2**62})
    yield "negative numbers", lambda: say(own | {"upshot-rank": -1, "upshot-expires": -5})
    yield "a receipt that nobody asked for", lambda: say(own | {"upshot-receipt": "x" * 1000})
    yield (
        "properties of another program",
        lambda: say(
            None,
            correlation_id="\x1b[31m",
            type="[red]",
            content_type="application/x-python-serialize",
        ),
    )
    yield "a body that nobody expects", lambda: say(own | {"upshot-key": f"{key}-other"})


VANDALS: Final[Mapping[str, Vandal]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "redis": _redis,
    "mongo": _mongo,
    "memcached": _memcached,
    "rpc": _rpc,
}
"""Each service's, by its name in `tests.endtoend.services`."""
