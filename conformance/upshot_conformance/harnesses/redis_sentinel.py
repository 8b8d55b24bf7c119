"""Looks into the master that sentinels name through redis-py's plain client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from upshot_conformance.harnesses.private import PrivateService
from upshot_conformance.harnesses.redis import RedisHarness, open_member, renaming

__all__ = ["RedisSentinelHarness"]


class RedisSentinelHarness(RedisHarness):
    """As for one server, the one that is master when the harness is made.

    Connections to the sentinels count as well.
    """

    scheme: ClassVar[str] = "redis+sentinel"
    default_port: ClassVar[int] = 26379

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a master, a replica and three sentinels without persistence."""
        from upshot_conformance.servers import RedisSentinelServer  # only for who starts one

        return RedisSentinelServer()

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Return those of the sentinels and that of the master."""
        return [*super().addresses(), self._master]

    def renaming(
        self, proxies: Mapping[tuple[str, int], tuple[str, int]]
    ) -> Callable[[bytes], bytes]:
        return renaming(self.url, proxies)

    def _open_all(self) -> list[Any]:
        password = self.url.options.get("sentinel_password", "")
        self._sentinels: list[Any] = [
            open_member(self.url, host, port or self.default_port, database="", password=password)
            for host, port in self.url.hosts
        ]
        service, _, database = self.url.path.strip("/").partition("/")
        if named := dict(self.url.query).get("master_name"):
            service, database = named, service
        answer = self._sentinels[0].execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", service)
        host, port = cast("tuple[bytes | str, bytes | int]", answer)
        self._master = (host.decode() if isinstance(host, bytes) else host, int(port))
        return [open_member(self.url, *self._master, database=database or "0")]

    def _all_servers(self) -> Sequence[Any]:
        return [*self.servers, *self._sentinels]
