"""How long one call takes, and how much of a processor: store, fetch, forget, and batches."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders import opened
from benchmarks.figures import Figure
from benchmarks.player import Player, in_turn

__all__ = ["run"]

BATCH: Final = 1000
_ROUNDS: Final = (7, 2)  # in full, and quickly
_BATCHES: Final = (7, 1)  # rounds: who has no call for many takes seconds
_LONGEST: Final = (2.5, 1.0)  # seconds for all rounds of one figure


@dataclass(frozen=True)
class _Single:
    """One kind of call: what it does to results of what size, in how many threads."""

    operation: str
    size: str
    count: int
    threads: int = 1

    @property
    def name(self) -> str:
        """How tables call it."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.operation} {self.size}{threads}"


_SINGLES: Final = (
    _Single("store", "small", 200),
    _Single("fetch", "small", 200),
    _Single("forget", "small", 200),
    _Single("store", "small", 400, threads=8),
    _Single("fetch", "small", 400, threads=8),
    _Single("forget", "small", 400, threads=8),
    _Single("store", "10 kB", 100),
    _Single("fetch", "10 kB", 100),
    _Single("store", "1 MB", 6),
    _Single("fetch", "1 MB", 6),
    _Single("forget", "1 MB", 6),
)
_QUICK: Final = _SINGLES[:3]
_WITH_BATCHES: Final = ("upshot", "raw")  # who has calls for many


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure every contender in turn, a fraction of a second each, as many rounds as it takes."""
    figures: list[Figure] = []
    with contextlib.ExitStack() as stack:
        players = [stack.enter_context(opened(name, service, url)) for name in contenders]
        receivers = _receivers(stack, players, service, url)
        for single in _QUICK if quick else _SINGLES:
            figures += _single(players, quick, service, single, receivers)
        brisk = [each for each in players if not quick or _seconds_of_batch(figures[0], each) < 1.0]
        for operation in ("store", "fetch"):
            figures += _batch(brisk, quick, service, operation, receivers)
    return [figure for figure in figures if figure.samples]


def _receivers(
    stack: contextlib.ExitStack, players: Sequence[Player], service: str, url: str
) -> dict[str, str]:
    """Return where each one's results are stored, by its name; {} where the service keeps them.

    They are carried to another process, as a worker's are: what a process sends to itself, it may
    have to wait for.
    """
    if service != "rpc":
        return {}
    found: dict[str, str] = {}

    def act(player: Player) -> None:
        receiver = stack.enter_context(opened(player.name, service, url))
        found[player.name] = receiver.ask("expect", ids=["any"])

    in_turn(players, 1, act)
    return found


def _single(
    players: Sequence[Player],
    quick: bool,
    service: str,
    single: _Single,
    receivers: Mapping[str, str],
) -> list[Figure]:
    clock = Figure("micro", service, single.name, "µs")
    cpu = Figure("micro", service, f"{single.name}, processor", "µs")

    def act(player: Player) -> None:
        found = player.ask(
            "measure",
            operation=single.operation,
            size=single.size,
            count=single.count,
            threads=single.threads,
            address=receivers.get(player.name) if single.operation == "store" else None,
        )
        clock.add(player.name, found["seconds"] * 1e6)
        cpu.add(player.name, found["cpu"] * 1e6)

    in_turn(players, _ROUNDS[quick], act, _LONGEST[quick])
    return [clock] if single.threads > 1 else [clock, cpu]


def _seconds_of_batch(store: Figure, player: Player) -> float:
    """Return how long a batch takes whoever has no call for it, as SQL through Celery."""
    if player.name in _WITH_BATCHES or player.name not in store.samples:
        return 0.0
    return store.median(player.name) / 1e6 * BATCH


def _batch(
    players: Sequence[Player],
    quick: bool,
    service: str,
    operation: str,
    receivers: Mapping[str, str],
) -> list[Figure]:
    figures = [
        Figure("micro", service, f"{operation} {BATCH} at once", "ms"),
        Figure("micro", service, f"{operation} {BATCH} at once, processor", "ms"),
    ]

    def act(player: Player) -> None:
        address = receivers.get(player.name) if operation == "store" else None
        found = player.ask("measure_batch", operation=operation, count=BATCH, address=address)
        for figure, measured in zip(figures, ("seconds", "cpu"), strict=True):
            figure.add(player.name, found[measured] * 1e3)

    in_turn(players, _BATCHES[quick], act, _LONGEST[quick])
    return figures
