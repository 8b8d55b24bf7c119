"""How soon a result is there after it was stored by another process, and what waiting costs."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.contenders import opened
from benchmarks.figures import Figure
from benchmarks.player import Player, in_turn

__all__ = ["run"]

_SAMPLES: Final = (40, 10)  # of one waiter's, in full and quickly
_ROUNDS: Final = (3, 1)  # of many waiters
_THREADS: Final = 200
_JOINED: Final = ((1000, "1 000"), (10_000, "10 000"))
_DELAY: Final = (0.02, 0.05)  # seconds until a result is stored that is waited for
_SETTLE: Final = 1.5  # seconds for all threads to wait


class _Pair:
    """Two processes of one contender: one waits, the other one stores."""

    def __init__(self, waiter: Player, storer: Player) -> None:
        self.name = waiter.name
        self.waiter = waiter
        self.storer = storer

    def new(self, count: int) -> tuple[list[str], str]:
        """Return ids that are to be waited for, and where their results go."""
        ids = [uuid.uuid4().hex for _ in range(count)]
        return ids, self.waiter.ask("expect", ids=ids)


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure one waiter, two hundred threads, and one call for many results."""
    with contextlib.ExitStack() as stack:
        pairs = [
            _Pair(
                stack.enter_context(opened(name, service, url)),
                stack.enter_context(opened(name, service, url)),
            )
            for name in contenders
        ]
        figures = [_one(pairs, service, quick)]
        if not quick:
            figures += _threads(pairs, service)
            for count, shown in _JOINED:
                figures += _join(pairs, service, count, shown)
    return [figure for figure in figures if figure.samples]


def _one(pairs: Sequence[_Pair], service: str, quick: bool) -> Figure:
    figure = Figure("wake", service, "one waiter, from the call that stores", "ms")

    def act(pair: _Pair) -> None:
        ids, address = pair.new(1)
        pair.waiter.tell("wait", id=ids[0])
        stored = pair.storer.ask("store", ids=ids, address=address, delay=random.uniform(*_DELAY))
        figure.add(pair.name, (pair.waiter.answer() - stored["called"]) * 1e3)

    in_turn(pairs, _SAMPLES[quick] + 1, act)
    for samples in figure.samples.values():
        del samples[0]  # it opened the connections
    return figure


def _threads(pairs: Sequence[_Pair], service: str) -> list[Figure]:
    name = f"{_THREADS} threads wait"
    home = Figure("wake", service, f"{name}: from the first stored to the last back", "ms")
    idle = Figure("wake", service, f"{name}: processor meanwhile", "% of one")
    held = Figure("wake", service, f"{name}: sockets", "")
    failed = Figure("wake", service, f"{name}: failed", "")

    def act(pair: _Pair) -> None:
        ids, address = pair.new(_THREADS)
        pair.waiter.tell("wait_in_threads", ids=ids, settle=_SETTLE)
        pair.waiter.hear()
        stored = pair.storer.ask("store", ids=ids, address=address, delay=0.05)
        found = pair.waiter.answer()
        failed.add(pair.name, found["failed"])
        idle.add(pair.name, found["idle"] * 100)
        held.add(pair.name, found["connections"])
        if found["moments"]:
            home.add(pair.name, (max(found["moments"]) - stored["called"]) * 1e3)

    in_turn(pairs, _ROUNDS[0], act)
    return [home, idle, held, failed]


def _join(pairs: Sequence[_Pair], service: str, count: int, shown: str) -> list[Figure]:
    rate = Figure("wake", service, f"one call for {shown}", "results/s", "higher")
    held = Figure("wake", service, f"one call for {shown}: sockets", "")

    def act(pair: _Pair) -> None:
        found, stored = _joined(pair, count)
        rate.add(pair.name, count / (found["moment"] - stored["called"]))
        held.add(pair.name, found["connections"])

    in_turn(pairs, _ROUNDS[0], act)
    return [rate, held]


def _joined(pair: _Pair, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    ids, address = pair.new(count)
    pair.waiter.tell("wait_many", ids=ids)
    pair.waiter.hear()
    stored = pair.storer.ask("store_many", ids=ids, address=address, delay=0.1)
    return pair.waiter.answer(), stored
