"""What `upshot doctor` asks a MongoDB: what kind of deployment it is, and what that can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any, Final

from pymongo.errors import OperationFailure

from upshot import clock
from upshot.finding import Advice, Finding, Level, advice_for, clock_finding
from upshot_backends.mongo.connection import MongoDatabase
from upshot_backends.mongo.driver import Settings, bounded

__all__ = ["advise", "diagnose"]

_OLDEST: Final = (4, 4)
_HELD: Final = 0.1  # seconds that the server may hold a request for events
_NO_STREAM: Final = (
    "whoever waits looks at most 50 ms apart, and does not hear that a result was forgotten"
)

_ADVICE: Final[Advice] = (
    (
        ("authentication failed", "auth mechanism"),
        (
            "correct user and password in the URL; where the user is kept in another database "
            "than the results, add ?authSource=admin"
        ),
    ),
    (
        ("not authorized", "unauthorized", "requires authentication"),
        (
            "give the user the role readWrite on the database, which has all that is needed: "
            'db.grantRolesToUser("USER", [{role: "readWrite", db: "DATABASE"}])'
        ),
    ),
    (
        ("notwritableprimary", "not primary", "not master", "no primary", "primary()"),
        "name the replica set, so that the primary is found: ?replicaSet=NAME",
    ),
    (
        ("connection closed", "connection reset", "ssl handshake", "wrong version number"),
        "correct the port; TLS is asked for by ?tls=true, and left out by ?tls=false",
    ),
)


def diagnose(database: MongoDatabase, timeout: float) -> list[Finding]:
    """Look at the server that takes the writes."""
    with bounded(timeout):
        asked = clock.now()
        hello = database.ask({"hello": 1})
        doubt = (clock.now() - asked) / 2
        build = database.ask({"buildInfo": 1})
        streams = _streams(database) if _has_streams(hello) else None
    ahead = hello["localTime"].replace(tzinfo=UTC).timestamp() - asked - doubt
    return [
        _version(build, hello),
        *_deployment(hello, streams),
        *_concerns(database.settings, hello),
        # The server tells the time in whole milliseconds.
        clock_finding(ahead, doubt + 0.001),
    ]


def advise(said: str) -> str:
    """Return what to change where MongoDB, or pymongo, said this; "" if unknown."""
    return advice_for(said, _ADVICE)


def _has_streams(hello: Mapping[str, Any]) -> bool:
    return "setName" in hello or hello.get("msg") == "isdbgrid"


def _streams(database: MongoDatabase) -> str:
    """Return why no change stream can be opened; "" if one can."""
    try:
        with database.watch([], _HELD):
            return ""
    except OperationFailure as exc:
        return str((exc.details or {}).get("errmsg", exc))


def _version(build: Mapping[str, Any], hello: Mapping[str, Any]) -> Finding:
    if hello.get("msg") == "isdbgrid":
        kind = "a sharded cluster"
    elif "setName" in hello:
        count = len(hello.get("hosts", ()))
        kind = f"the replica set {hello['setName']!r} of {count} member{'s' if count != 1 else ''}"
    else:
        kind = "a standalone server"
    version = str(build.get("version", ""))
    if tuple(build.get("versionArray", _OLDEST))[:2] < _OLDEST:
        return Finding(
            Level.PROBLEM, f"MongoDB {version}, {kind}: too old", change="upgrade to 4.4 or newer"
        )
    return Finding(Level.OK, f"MongoDB {version}, {kind}")


def _deployment(hello: Mapping[str, Any], streams: str | None) -> Iterator[Finding]:
    if not hello.get("isWritablePrimary"):
        yield Finding(
            Level.PROBLEM,
            "it takes no writes: it is not the primary",
            change="name the replica set, so that the primary is found: ?replicaSet=NAME",
        )
    if streams is None:
        yield Finding(
            Level.WARNING,
            "it wakes nobody who waits: a standalone MongoDB has no change streams",
            _NO_STREAM,
            "make it a replica set, if only of one member: start mongod with --replSet NAME, and "
            "run rs.initiate() once",
            capability="push",
        )
    elif streams:
        yield Finding(
            Level.WARNING,
            f"it wakes nobody who waits: this user may not open a change stream ({streams})",
            _NO_STREAM,
            "give the user the actions find and changeStream on the collection; readWrite has them",
            capability="push",
        )


def _concerns(settings: Settings, hello: Mapping[str, Any]) -> Iterator[Finding]:
    concern = settings.lasting.get("w")
    members = len(hello.get("hosts", ()))
    if concern == 1 and members > 1:
        yield Finding(
            Level.WARNING,
            "with w=1 in the URL a result counts as stored when the primary alone has it",
            "a fail-over at that moment loses it",
            "leave w out: a majority is waited for then",
        )
    elif members == 1:
        yield Finding(
            Level.NOTE,
            "one member has all results",
            "while it is away nothing can be stored or read",
            "add members",
        )
