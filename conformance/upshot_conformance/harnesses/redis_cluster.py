"""Looks into a Redis Cluster through redis-py's plain client, one connection to each master."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, ClassVar, cast

from upshot_conformance.harnesses.redis import RedisHarness, open_member, started

__all__ = ["RedisClusterHarness"]


class RedisClusterHarness(RedisHarness):
    """As for one server; subscriptions are to sharded channels or to plain ones."""

    scheme: ClassVar[str] = "redis+cluster"

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start three masters without persistence."""
        from upshot_conformance.servers import RedisClusterServer  # only for who starts one

        with started(RedisClusterServer) as url:
            yield url

    def _open_all(self) -> list[Any]:
        host, port = self.url.hosts[0]
        with contextlib.closing(open_member(self.url, host, port or 6379)) as somebody:
            ranges = cast("list[list[Any]]", somebody.execute_command("CLUSTER", "SLOTS"))
        masters = dict.fromkeys(
            (_text(master[0]) or host, master[1]) for _, _, master, *_ in ranges
        )
        return [open_member(self.url, *address) for address in masters]

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
