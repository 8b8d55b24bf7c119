"""What `upshot doctor` asks a Redis: its version and role, what it evicts, what it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import redis
from redis.exceptions import NoPermissionError

from upshot import clock
from upshot.finding import Advice, Finding, Level, advice_for, clock_finding
from upshot_backends.redis.client import RedisClient
from upshot_backends.redis.cluster import ClusterClient
from upshot_backends.redis.driver import Reply
from upshot_backends.redis.sentinel import SentinelClient
from upshot_backends.redis.server import Server

__all__ = ["advise", "diagnose"]

_OLDEST: Final = (6, 0)
_OLDEST_CLUSTER: Final = (7, 0)  # sharded channels
_QUESTIONS: Final = (("TIME",), ("INFO",), ("CONFIG", "GET", "save"))
_NO_REPLICA: Final = "a fail-over would have nowhere to go, and what only the master has is lost"

_ADVICE: Final[Advice] = (
    (
        ("wrongpass", "noauth", "invalid username-password", "without any password"),
        "correct user and password in the URL; the user is `default` if it is left out",
    ),
    (
        ("channel",),
        (
            "let the user publish and subscribe: ACL SETUSER USER &NAMESPACE* (channels are "
            "called like keys; since Redis 7 a new user may use none)"
        ),
    ),
    (
        ("noperm", "no permissions", "can't run this command"),
        (
            "let the user do what upshot does: ACL SETUSER USER ~NAMESPACE* &NAMESPACE* +@read "
            "+@write +@pubsub +@scripting +@connection +time"
        ),
    ),
    (
        ("readonly", "read only replica", "not a master"),
        "name the master in the URL, or ask the sentinels: redis+sentinel://HOST/NAME",
    ),
    (
        ("command not allowed when used memory",),  # redis-py takes "OOM" from before it
        "give it more memory (CONFIG SET maxmemory), or let records expire sooner: result_expires",
    ),
    (
        ("misconf",),
        "its last snapshot failed, so it refuses writes: see its log; the disk may be full",
    ),
    (("write redis+cluster://",), "write redis+cluster:// in the place of redis://"),
    (
        ("closed by server", "protocol error", "closed the connection", "connection reset"),
        "correct the port; if it is one for TLS, write rediss://",
    ),
    (
        ("timeout connecting",),
        (
            "see whether it hangs, or a firewall drops what is sent to it; a port without TLS is "
            "silent, too, if the URL says rediss://"
        ),
    ),
    (("wrong version number", "wrong_version_number"), "write redis://, or take the port for TLS"),
)


@dataclass(frozen=True, slots=True)
class _Told:
    """What one server told, as far as this user may ask.

    Attributes:
        info: the fields of INFO; empty if it may not be asked for.
        save: when snapshots are made, as in the configuration; None if it may not be asked for.
        ahead: seconds by which its clock is ahead; None if it may not be asked for.
        doubt: half of the round trip, in seconds.
    """

    info: Mapping[str, str]
    save: str | None
    ahead: float | None
    doubt: float


def diagnose(client: RedisClient, timeout: float) -> list[Finding]:
    """Look at every server that keys live on; the findings of several are said once."""
    until = clock.monotonic() + timeout
    servers = client.servers(timeout)
    told = [_ask(server, until) for server in servers]
    kind = "one server"
    if isinstance(client, ClusterClient):
        kind = f"a cluster of {len(servers)} masters"
    elif isinstance(client, SentinelClient):
        kind = "a master that sentinels watch"
    findings = [finding for each in told for finding in _findings(each, client, kind)]
    return list(dict.fromkeys(findings))


def advise(said: str) -> str:
    """Return what to change where Redis, or redis-py, said this; "" if unknown."""
    return advice_for(said, _ADVICE)


def _ask(server: Server, until: float) -> _Told:
    asked = clock.now()
    # One at a time: a cluster's client would send each where its first word, as a key, lives.
    answers = server.exchange(_QUESTIONS, until)
    doubt = (clock.now() - asked) / 2
    moment, info, save = answers
    if isinstance(info, redis.ResponseError) and not isinstance(info, NoPermissionError):
        raise info
    ahead: float | None = None
    if not isinstance(moment, redis.ResponseError):
        seconds, micros = cast("tuple[bytes, bytes]", moment)
        ahead = int(seconds) + int(micros) / 1e6 - asked - doubt
    return _Told(_fields(info), _saved(save), ahead, doubt)


def _fields(info: Reply | redis.ResponseError) -> dict[str, str]:
    if not isinstance(info, bytes):
        return {}
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _saved(save: Reply | redis.ResponseError) -> str | None:
    if isinstance(save, redis.ResponseError) or not save:
        return None
    return cast("Sequence[bytes]", save)[1].decode(errors="replace")


def _findings(told: _Told, client: RedisClient, kind: str) -> Iterator[Finding]:
    info = told.info
    if not info:
        yield Finding(Level.OK, f"Redis, {kind}; this user may not ask for its version")
        yield Finding(
            Level.NOTE,
            "this user may not run INFO, so it is unknown what the server evicts and keeps",
            change="ask somebody who may, or: ACL SETUSER USER +info",
        )
    else:
        yield _version(info, client, kind)
        yield from _role(info, client)
        yield _eviction(info)
        yield from _evicted(info)
        yield _persistence(info, told.save)
        yield from _broken(info)
    if told.ahead is not None:
        yield clock_finding(told.ahead, told.doubt)


def _version(info: Mapping[str, str], client: RedisClient, kind: str) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "")
    # Valkey goes on where Redis 7.2 was, and says so.
    known = tuple(int(part) for part in info.get("redis_version", "").split(".") if part.isdigit())
    oldest = _OLDEST_CLUSTER if isinstance(client, ClusterClient) else _OLDEST
    if known and known < oldest:
        return Finding(
            Level.PROBLEM,
            f"{name} {version}, {kind}: too old",
            change=f"upgrade to {oldest[0]}.{oldest[1]} or newer",
        )
    return Finding(Level.OK, f"{name} {version}, {kind}")


def _role(info: Mapping[str, str], client: RedisClient) -> Iterator[Finding]:
    if info.get("role") == "slave":
        host, port = info.get("master_host", ""), info.get("master_port", "")
        yield Finding(
            Level.PROBLEM,
            f"it is a replica of {host}:{port}, and takes no writes",
            change="name the master in the URL, or ask the sentinels: redis+sentinel://HOST/NAME",
        )
    in_cluster = info.get("cluster_enabled") == "1"
    if in_cluster and not isinstance(client, ClusterClient):
        yield Finding(
            Level.PROBLEM,
            "it is a node of a cluster, and has a part of the keys only",
            change="write redis+cluster:// in the place of redis://",
        )
    if isinstance(client, (ClusterClient, SentinelClient)):
        if info.get("connected_slaves") == "0":
            yield Finding(
                Level.WARNING,
                "a master has no replica at the moment",
                _NO_REPLICA,
                "start a replica, or see why none is connected",
            )
        else:
            yield Finding(
                Level.NOTE,
                "a fail-over loses what the master had not replicated yet",
                "that is a moment's work; min-replicas-to-write makes it less",
            )


def _eviction(info: Mapping[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", ""), int(info.get("maxmemory") or 0)
    memory = f"{limit // 2**20} MiB" if limit else "none"
    if policy in ("", "noeviction"):
        return Finding(
            Level.OK,
            f"it evicts nothing (maxmemory-policy {policy or 'unknown'}, maxmemory {memory})",
            "when that memory is full, it refuses to store, and workers wait" if limit else "",
        )
    victims = (
        "any record, and whole queues with their messages"
        if policy.startswith("allkeys")
        else "results before their time; queues do not expire, so they stay"
    )
    when = "when that memory is full" if limit else "once maxmemory is set: there is no limit yet"
    return Finding(
        Level.WARNING,
        f"it may throw away what upshot keeps: maxmemory-policy {policy}, maxmemory {memory}",
        f"it evicts {victims}, {when}; who waits for such a result waits in vain",
        "CONFIG SET maxmemory-policy noeviction, also in redis.conf; let a cache be another Redis",
    )


def _evicted(info: Mapping[str, str]) -> Iterator[Finding]:
    count = int(info.get("evicted_keys") or 0)
    if count:
        yield Finding(
            Level.WARNING,
            f"it has evicted {count} keys since it was started",
            "results or queues may have been among them",
            "give it more memory (maxmemory), or a maxmemory-policy that evicts nothing",
        )


def _persistence(info: Mapping[str, str], save: str | None) -> Finding:
    change = "CONFIG SET appendonly yes, and in redis.conf"
    if info.get("aof_enabled") == "1":
        return Finding(
            Level.OK,
            "results and messages survive a restart (appendonly yes)",
            "a crash of the machine may lose the last second (appendfsync everysec)",
            capability="persistent",
        )
    if save == "":
        return Finding(
            Level.WARNING,
            "a restart loses every result and every message (appendonly no, and no snapshots)",
            change=change,
            capability="persistent",
        )
    when = "appendonly no" if save is None else f"appendonly no, save {save}"
    return Finding(
        Level.WARNING,
        f"a crash loses the results and messages since the last snapshot ({when})",
        "a proper shutdown saves them",
        change,
        capability="persistent",
    )


def _broken(info: Mapping[str, str]) -> Iterator[Finding]:
    for name, what in (
        ("rdb_last_bgsave_status", "its last snapshot failed"),
        ("aof_last_write_status", "its append-only file cannot be written"),
    ):
        if info.get(name, "ok") != "ok":
            yield Finding(
                Level.PROBLEM,
                what,
                "it refuses writes for that, unless configured otherwise",
                "see its log; the disk may be full",
            )
