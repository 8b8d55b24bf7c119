"""Looks into a Redis Cluster through redis-py's plain client, one connection to each master."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from upshot_conformance.harnesses.private import PrivateService
from upshot_conformance.harnesses.redis import RedisHarness, open_member, renaming

__all__ = ["RedisClusterHarness"]


class RedisClusterHarness(RedisHarness):
    """As for one server; subscriptions are to sharded channels or to plain ones."""

    scheme: ClassVar[str] = "redis+cluster"

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return three masters without persistence."""
        from upshot_conformance.servers import RedisClusterServer  # only for who starts one

        return RedisClusterServer()

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Return those of the URL and those that the masters give themselves."""
        return list(dict.fromkeys([*super().addresses(), *self._masters]))

    def renaming(
        self, proxies: Mapping[tuple[str, int], tuple[str, int]]
    ) -> Callable[[bytes], bytes]:
        return renaming(self.url, proxies)

    def _open_all(self) -> list[Any]:
        host, port = self.url.hosts[0]
        seed = open_member(self.url, host, port or self.default_port)
        with contextlib.closing(seed) as somebody:
            ranges = cast("list[list[Any]]", somebody.execute_command("CLUSTER", "SLOTS"))
        found = ((_text(master[0]) or host, int(master[1])) for _, _, master, *_ in ranges)
        self._masters = list(dict.fromkeys(found))
        return [open_member(self.url, *address) for address in self._masters]

    def _channels(self, server: Any) -> Sequence[bytes]:
        sharded = cast("list[bytes]", server.execute_command("PUBSUB", "SHARDCHANNELS"))
        return [*super()._channels(server), *sharded]

    def _holder(self, name: str) -> Any:
        import redis  # as in the other harness

        for server in self.servers:
            with contextlib.suppress(redis.ResponseError):  # MOVED
                server.exists(name.encode(errors="surrogateescape"))
                return server
        raise LookupError(f"no master serves the slot of {name!r}")


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""
