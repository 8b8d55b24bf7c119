"""What travels: round trips of each call, commands on Redis, bytes of a stored result there."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from benchmarks.contenders import opened
from benchmarks.figures import Figure
from benchmarks.player import Player, in_turn
from upshot.url import Url
from upshot_conformance.proxies import readdressed
from upshot_conformance.proxy import Proxy

__all__ = ["commands_sent", "run"]

_FEW, _MORE = 10, 60  # calls; the difference has no connecting in it
_STORED: Final = 2000  # results whose memory is measured


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Count what every contender sends for one call."""
    parsed = Url.parse(url)
    if not parsed.hosts:
        return []  # nothing travels
    host, port = parsed.hosts[0]
    assert port is not None
    trips = {
        each: Figure("wire", service, f"{each}: round trips", "")
        for each in ("store", "fetch", "forget")
    }
    memory = Figure("wire", service, "memory of a small result", "bytes")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(host, port))
        through = readdressed(url, [proxy.address])
        players = [stack.enter_context(opened(name, service, through)) for name in contenders]
        for operation, figure in trips.items():
            in_turn(players, 1, _counter(proxy, operation, figure))
        if service == "redis":
            in_turn(players, 1, _weigher(url, memory))
    return [figure for figure in (*trips.values(), memory) if figure.samples]


def _counter(proxy: Proxy, operation: str, figure: Figure) -> Callable[[Player], None]:
    def turns(player: Player, operation: str) -> float:
        """Return the round trips of one call, and of storing what it is about."""
        seen: list[int] = []
        for count in (_FEW, _FEW, _MORE):  # the first one opens the connections
            before = proxy.turns
            player.ask("measure", operation=operation, size="small", count=count)
            seen.append(proxy.turns - before)
        return (seen[2] - seen[1]) / (_MORE - _FEW)

    def act(player: Player) -> None:
        stored = 0.0 if operation == "store" else turns(player, "store")
        figure.add(player.name, round(turns(player, operation) - stored, 2))

    return act


def _weigher(url: str, figure: Figure) -> Callable[[Player], None]:
    def act(player: Player) -> None:
        with contextlib.closing(_redis(url)) as client:
            before = client.info("memory")["used_memory"]
            ids = [f"{number:032x}" for number in range(_STORED)]
            player.ask("store", ids=ids, address="", delay=0.0)
            used = client.info("memory")["used_memory"] - before
            figure.add(player.name, round(used / _STORED))
            client.flushdb()

    return act


def _redis(url: str) -> Any:
    return importlib.import_module("redis").Redis.from_url(url)


@contextlib.contextmanager
def commands_sent(url: str) -> Generator[Callable[[], int]]:
    """Count the commands that clients send to a Redis, whatever its scripts do with them."""
    with contextlib.closing(_redis(url)) as client, client.monitor() as monitor:

        def count() -> int:
            client.echo("end")
            sent = 0
            for each in monitor.listen():
                if each["client_type"] == "lua":
                    continue
                if each["command"].startswith("ECHO end"):
                    return sent
                sent += 1
            return sent

        yield count
