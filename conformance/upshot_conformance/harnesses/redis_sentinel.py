"""Looks into the master that sentinels name through redis-py's plain client."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, ClassVar, cast

from upshot_conformance.harnesses.redis import RedisHarness, open_member, started

__all__ = ["RedisSentinelHarness"]


class RedisSentinelHarness(RedisHarness):
    """As for one server, the one that is master when the harness is made.

    Connections to the sentinels count as well.
    """

    scheme: ClassVar[str] = "redis+sentinel"

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a master, a replica and three sentinels without persistence."""
        from upshot_conformance.servers import RedisSentinelServer  # only for who starts one

        with started(RedisSentinelServer) as url:
            yield url

    def _open_all(self) -> list[Any]:
        password = self.url.options.get("sentinel_password", "")
        self._sentinels: list[Any] = [
            open_member(self.url, host, port or 26379, database="", password=password)
            for host, port in self.url.hosts
        ]
        service, _, database = self.url.path.strip("/").partition("/")
        if named := dict(self.url.query).get("master_name"):
            service, database = named, service
        answer = self._sentinels[0].execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", service)
        host, port = cast("tuple[bytes | str, bytes | int]", answer)
        name = host.decode() if isinstance(host, bytes) else host
        return [open_member(self.url, name, int(port), database=database or "0")]

    def _all_servers(self) -> Sequence[Any]:
        return [*self.servers, *self._sentinels]
