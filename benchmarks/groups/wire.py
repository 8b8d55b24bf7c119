"""What travels: round trips of each call, of submitting and of working; bytes that Redis keeps."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.commands import redis_client
from benchmarks.contenders import opened
from benchmarks.figures import Figure
from benchmarks.player import Player, in_turn
from benchmarks.workers import Side, at_work, places, taking_part
from upshot.url import Url
from upshot_conformance.proxies import readdressed
from upshot_conformance.proxy import Address, Proxy

__all__ = ["run"]

_FEW, _MORE = 10, 60  # calls; the difference has no connecting in it
_ROUNDS: Final = {"mongodb": 3}  # whose driver now and then asks its server something of its own
_STORED: Final = 2000  # results whose memory is measured
_TASKS: Final = (200, 100)  # whose round trips are counted, in full and quickly
_SLOW: Final = {"rq": 20}  # it forks for each task
_QUICK: Final = ("upshot", "celery")  # whose calls and tasks are counted in a first look


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
        if service == "mongodb":  # its clients go where the member of the set says that it is
            proxy.translate = partial(_renamed, (host, port), proxy.address)
        through = readdressed(url, [proxy.address])
        few = [each for each in contenders if not quick or each in _QUICK]
        players = [stack.enter_context(opened(name, service, through)) for name in few]
        for operation, figure in trips.items():
            in_turn(players, _ROUNDS.get(service, 1), _counter(proxy, operation, figure))
        if service == "redis":
            in_turn(players, 1, _weigher(url, memory))
    figures = [*trips.values(), memory, *_tasks(service, url, (host, port), contenders, quick)]
    return [figure for figure in figures if figure.samples]


def _renamed(member: Address, proxy: Address, piece: bytes) -> bytes:
    """Put the proxy's name into each `hello`: of the same length, because BSON counts."""
    old, new = (b"%b:%d" % (host.encode(), port) for host, port in (member, proxy))
    assert len(old) == len(new), "ports above 9999 have five digits"
    return piece.replace(old, new)


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
        with contextlib.closing(redis_client(url)) as client:
            before = client.info("memory")["used_memory"]
            ids = [f"{number:032x}" for number in range(_STORED)]
            player.ask("store", ids=ids, address="", delay=0.0)
            used = client.info("memory")["used_memory"] - before
            figure.add(player.name, round(used / _STORED))
            client.flushdb()

    return act


def _tasks(
    service: str, url: str, server: Address, contenders: Sequence[str], quick: bool
) -> list[Figure]:
    """Count for each task queue by itself: its client and its worker have proxies of their own."""
    submit = Figure("wire", service, "submit: round trips", "")
    work = Figure("wire", service, "worker: round trips, per task", "")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        names = taking_part(service, contenders)
        where = places(service, url, folder, [n for n in names if not quick or n in _QUICK])
        for queue, (broker, results) in where.items():
            with Proxy(*server) as clients, Proxy(*server) as workers:
                near, far = (
                    (_through(broker, proxy), _through(results, proxy))
                    for proxy in (clients, workers)
                )
                try:
                    with at_work(queue, near, folder, far) as side:
                        submit.add(queue, _submitting(side, clients))
                        count = min(_TASKS[quick], _SLOW.get(queue, _TASKS[quick]))
                        before = workers.turns
                        side.client.ask("throughput", count=count)
                        work.add(queue, round((workers.turns - before) / count, 2))
                except RuntimeError as exc:
                    print(f"left out: {exc}", file=sys.stderr)
    return [submit, work]


def _through(place: str, proxy: Proxy) -> str:
    """Return the URL of a place as it is behind a proxy; "rpc://" names none."""
    return place if place == "rpc://" else readdressed(place, [proxy.address])


def _submitting(side: Side, proxy: Proxy) -> float:
    seen: list[int] = []
    for count in (_FEW, _MORE):
        before = proxy.turns
        side.client.ask("submit", count=count)
        seen.append(proxy.turns - before)
        side.client.ask("collect")
    return round((seen[1] - seen[0]) / (_MORE - _FEW), 2)
