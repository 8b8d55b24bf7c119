"""A private Redis with a replica, watched by sentinels that fail over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

from .base import Server
from .ensemble import Ensemble
from .ports import LOOPBACK
from .redis import RedisServer

__all__ = ["RedisSentinelServer", "Sentinel"]

_SERVICE = "upshot"


class Sentinel(RedisServer):
    """One sentinel.

    Args:
        master: what it watches; to be started before it.
        quorum: how many sentinels must call the master down.
        down_after: seconds without an answer until this one does.
        password: what clients, and the other sentinels, must give it; None for nothing.
        master_password: what the master and its replicas ask for; None for nothing.
        start_timeout: seconds it may take until it answers.
    """

    name: ClassVar[str] = "Sentinel"

    def __init__(
        self,
        master: RedisServer,
        *,
        quorum: int,
        down_after: float,
        password: str | None = None,
        master_password: str | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(password=password, start_timeout=start_timeout)
        self._master = master
        self._quorum = quorum
        self._down_after = down_after
        self._master_password = master_password

    @property
    def url(self) -> str:
        """`redis+sentinel://127.0.0.1:<port>/upshot`.

        Raises:
            ServerError: the sentinel was not started.
        """
        return f"redis+sentinel://{LOOPBACK}:{self.port}/{_SERVICE}"

    def _prepare(self) -> None:
        # A sentinel writes what it learns into its own configuration.
        lines = [
            f"port {self.port}",
            f"bind {LOOPBACK}",
            f"sentinel monitor {_SERVICE} {LOOPBACK} {self._master.port} {self._quorum}",
            f"sentinel down-after-milliseconds {_SERVICE} {self._down_after * 1000:.0f}",
            f"sentinel failover-timeout {_SERVICE} 5000",
        ]
        if self._password:
            secret = json.dumps(self._password, ensure_ascii=False)  # its file quotes alike
            lines += [f"requirepass {secret}", f"sentinel sentinel-pass {secret}"]
        if self._master_password:
            secret = json.dumps(self._master_password, ensure_ascii=False)
            lines.append(f"sentinel auth-pass {_SERVICE} {secret}")
        self._started().write("sentinel.conf", "\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [str(self._required()), str(self.folder / "sentinel.conf"), "--sentinel"]


class RedisSentinelServer(Ensemble):
    """A master, its replicas and their sentinels: real processes on 127.0.0.1.

    Args:
        replicas: how many.
        sentinels: how many; more than half of them must agree.
        down_after: seconds without an answer until the master counts as down. The default is so
            long that nothing fails over unless a test asks for it.
        password: what master and replicas ask for; None for nothing.
        sentinel_password: what the sentinels ask for; None for nothing.
        start_timeout: seconds until each answers, and then until they know each other.
    """

    name: ClassVar[str] = "Redis with sentinels"

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        down_after: float = 60.0,
        password: str | None = None,
        sentinel_password: str | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        # Otherwise it would wait five seconds for further replicas.
        at_once = ["--repl-diskless-sync-delay", "0"]
        first = RedisServer(password=password, arguments=at_once, start_timeout=start_timeout)
        followers = [_Replica(first, password, start_timeout) for _ in range(replicas)]
        self.data_servers: list[RedisServer] = [first, *followers]
        """The first master, then the first replicas; `master` tells who is master now."""
        self.sentinels = [
            Sentinel(
                first,
                quorum=sentinels // 2 + 1,
                down_after=down_after,
                password=sentinel_password,
                master_password=password,
                start_timeout=start_timeout,
            )
            for _ in range(sentinels)
        ]

    @property
    def servers(self) -> Sequence[Server]:
        """Master, replicas, sentinels."""
        return [*self.data_servers, *self.sentinels]

    @property
    def service(self) -> str:
        """What the sentinels call the master."""
        return _SERVICE

    @property
    def url(self) -> str:
        """`redis+sentinel://127.0.0.1:<port>,…/upshot/0` with every sentinel, without passwords.

        Raises:
            ServerError: the service was not started.
        """
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{_SERVICE}/0"

    @property
    def master(self) -> RedisServer:
        """The data server that the first running sentinel calls master."""
        sentinel = next(sentinel for sentinel in self.sentinels if sentinel.running)
        port = int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE).split("\n")[1])
        return next(server for server in self.data_servers if server.port == port)

    def has_role(self, server: RedisServer, role: str) -> bool:
        """Tell whether a data server calls itself "master" or "slave".

        False, too, while a sentinel changes that: it closes every connection of that server.
        """
        try:
            return f"role:{role}" in server.ask("INFO", "replication")
        except ConnectionError:
            return False

    def _introduce(self) -> None:
        """Do nothing: replicas and sentinels find each other through the master."""

    def _is_whole(self) -> bool:
        return all(self._knows_all(sentinel) for sentinel in self.sentinels)

    def _knows_all(self, sentinel: Sentinel) -> bool:
        words = sentinel.ask("SENTINEL", "MASTER", _SERVICE).split("\n")
        fields = dict(zip(words[::2], words[1::2], strict=True))
        replicas = sentinel.ask("SENTINEL", "REPLICAS", _SERVICE)
        return (
            fields["flags"] == "master"
            and int(fields["num-slaves"]) == len(self.data_servers) - 1
            and int(fields["num-other-sentinels"]) == len(self.sentinels) - 1
            and replicas.count("master-link-status\nok") == len(self.data_servers) - 1
        )


class _Replica(RedisServer):
    """A server that begins as a replica of another."""

    def __init__(self, master: RedisServer, password: str | None, start_timeout: float) -> None:
        super().__init__(password=password, start_timeout=start_timeout)
        self._master = master

    def _command(self) -> list[str]:
        return [*super()._command(), "--replicaof", LOOPBACK, str(self._master.port)]
