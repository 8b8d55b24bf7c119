"""How soon a result is there after it was stored by another process, and what waiting costs."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from benchmarks.contenders import opened
from benchmarks.figures import Figure
from benchmarks.player import Player, in_turn

__all__ = ["run"]

_SAMPLES: Final = (30, 6)  # of one waiter's, in full and quickly
_LONGEST: Final = (8.0, 1.0)  # seconds for all of them
_ROUNDS: Final = (3, 1)  # of many waiters
_LONG: Final = 6.0  # seconds after which no other round of many waiters begins
_THREADS: Final = 200
_CROWDED: Final = ("redis", "rpc", "postgresql")  # where many threads wait; elsewhere one does
_SETTLE: Final = (1.0, 0.7)  # seconds for all threads to wait, and then to look on
_BATCH: Final = 1000
_MANY: Final = 10_000
_FAST: Final = 1000.0  # results/s of a thousand; who is slower is not asked for ten thousand
_DELAY: Final = (0.02, 0.05)  # seconds until a result is stored that is waited for


class _Pair:
    """Two processes of one contender: one waits, the other one stores."""

    def __init__(self, waiter: Player, storer: Player) -> None:
        self.name = waiter.name
        self.waiter = waiter
        self.storer = storer

    def stored(self, order: str, ids: list[str], address: str, delay: float) -> float:
        """Store what is waited for; return the moment when the call that stores began.

        Raises:
            RuntimeError: it failed. The waiter has ended by then, and takes further orders.
        """
        try:
            stored = self.storer.ask(order, ids=ids, address=address, delay=delay)
        except RuntimeError:
            with contextlib.suppress(RuntimeError):
                self.waiter.answer()
            raise
        return float(stored["called"])

    def new(self, count: int) -> tuple[list[str], str]:
        """Return ids that are to be waited for, and where their results go."""
        ids = [uuid.uuid4().hex for _ in range(count)]
        return ids, self.waiter.ask("expect", ids=ids)


def run(service: str, url: str, contenders: Sequence[str], quick: bool) -> list[Figure]:
    """Measure one waiter, two hundred threads, one call for many results, and coroutines."""
    # In a first look, only of those that the targets name.
    few = [each for each in contenders if not quick or each in {"upshot", "celery"}]
    figures: list[Figure] = []
    with _opened(contenders, service, url) as pairs:
        figures.append(_one(pairs, service, quick))
        if not quick:
            figures.append(_one_coroutine(pairs, service, quick))
    # In new processes, so that only what these figures are about is connected.
    # On PostgreSQL, Celery's threads time out at their pool, after half a minute.
    if not quick or (service in _CROWDED and service != "postgresql"):
        with _opened(few, service, url) as pairs:
            figures += _threads(pairs, service, quick)
    if not quick or service == "redis":
        with _opened(few, service, url) as pairs:
            thousand = _join(pairs, service, _BATCH, "1 000", quick)
            fast = [
                each
                for each in pairs
                if _rate(thousand[0], each.name) > _FAST and (not quick or each.name == "upshot")
            ]
            figures += [*thousand, *_join(fast, service, _MANY, "10 000", quick)]
            figures.append(_coroutines(pairs, service, quick))
    return [figure for figure in figures if figure.samples]


@contextlib.contextmanager
def _opened(names: Sequence[str], service: str, url: str) -> Generator[list[_Pair]]:
    with contextlib.ExitStack() as stack:
        yield [
            _Pair(*(stack.enter_context(opened(name, service, url)) for _ in range(2)))
            for name in names
        ]


def _one(pairs: Sequence[_Pair], service: str, quick: bool) -> Figure:
    figure = Figure("wake", service, "one waiter, from the call that stores", "ms")

    def act(pair: _Pair) -> None:
        ids, address = pair.new(1)
        pair.waiter.tell("wait", id=ids[0])
        called = pair.stored("store", ids, address, random.uniform(*_DELAY))
        figure.add(pair.name, (pair.waiter.answer() - called) * 1e3)

    return _without_first(figure, pairs, act, quick)


def _one_coroutine(pairs: Sequence[_Pair], service: str, quick: bool) -> Figure:
    figure = Figure("wake", service, "one coroutine, from the call that stores", "ms")

    def act(pair: _Pair) -> None:
        ended, called = _awaited(pair, 1, random.uniform(*_DELAY))
        figure.add(pair.name, (ended - called) * 1e3)

    return _without_first(figure, pairs, act, quick)


def _without_first(
    figure: Figure, pairs: Sequence[_Pair], act: Callable[[_Pair], None], quick: bool
) -> Figure:
    """Take samples, and throw away the first ones: they opened the connections."""
    in_turn(pairs, _SAMPLES[quick] + 1, act, _LONGEST[quick])
    for samples in figure.samples.values():
        if len(samples) > 1:
            del samples[0]
    return figure


def _threads(pairs: Sequence[_Pair], service: str, quick: bool) -> list[Figure]:
    """Measure many waiting threads, and before them one, which has to have its connections, too."""
    name = f"{_THREADS} threads wait"
    home = Figure("wake", service, f"{name}: from the first stored to the last back", "ms")
    idle = Figure("wake", service, f"{name}: processor meanwhile", "% of one")
    held = Figure("wake", service, f"{name}: connections", "")
    more = Figure("wake", service, f"{name}: connections more than for one", "")
    failed = Figure("wake", service, f"{name}: failed", "")
    one_idle = Figure("wake", service, "one thread waits: processor meanwhile", "% of one")
    one_held = Figure("wake", service, "one thread waits: connections", "")
    of_one: dict[str, float] = {}

    def alone(pair: _Pair) -> None:
        found, _ = _waited(pair, 1, quick)
        one_idle.add(pair.name, found["idle"] * 100)
        one_held.add(pair.name, found["connections"])
        of_one[pair.name] = found["connections"]

    def together(pair: _Pair) -> None:
        found, called = _waited(pair, _THREADS, quick)
        failed.add(pair.name, found["failed"])
        idle.add(pair.name, found["idle"] * 100)
        held.add(pair.name, found["connections"])
        more.add(pair.name, found["connections"] - of_one[pair.name])
        if found["moments"]:  # of those that came back, which favours who lost some
            home.add(pair.name, (max(found["moments"]) - called) * 1e3)

    in_turn(pairs, 1, alone)
    able = [each for each in pairs if each.name in of_one]
    if service in _CROWDED:
        in_turn(able, _ROUNDS[quick], together, _LONG)
    return [home, idle, held, more, failed, one_idle, one_held]


def _waited(pair: _Pair, count: int, quick: bool) -> tuple[dict[str, Any], float]:
    """Return what waiting in threads was like, and when the call that stores began."""
    ids, address = pair.new(count)
    pair.waiter.tell("wait_in_threads", ids=ids, settle=_SETTLE[quick])
    pair.waiter.begun()
    called = pair.stored("store", ids, address, 0.05)
    return pair.waiter.answer(), called


def _join(
    pairs: Sequence[_Pair], service: str, count: int, shown: str, quick: bool
) -> list[Figure]:
    name = f"one call for {shown}"
    rate = Figure("wake", service, name, "results/s", "higher")
    held = Figure("wake", service, f"{name}: connections", "")
    threads = Figure("wake", service, f"{name}: threads besides the caller's", "")

    def act(pair: _Pair) -> None:
        ids, address = pair.new(count)
        pair.waiter.tell("wait_many", ids=ids)
        pair.waiter.begun()
        called = pair.stored("store_many", ids, address, 0.1)
        found = pair.waiter.answer()
        rate.add(pair.name, count / (found["moment"] - called))
        held.add(pair.name, found["connections"])
        threads.add(pair.name, found["threads"] - 1)

    in_turn(pairs, _ROUNDS[quick], act, _LONG)
    return [rate, held, threads]


def _rate(figure: Figure, name: str) -> float:
    return figure.median(name) if name in figure.samples else 0.0


def _coroutines(pairs: Sequence[_Pair], service: str, quick: bool) -> Figure:
    figure = Figure("wake", service, "1 000 coroutines", "results/s", "higher")

    def act(pair: _Pair) -> None:
        ended, called = _awaited(pair, _BATCH, 0.3)
        figure.add(pair.name, _BATCH / (ended - called))

    in_turn(pairs, _ROUNDS[quick], act, _LONG)
    return figure


def _awaited(pair: _Pair, count: int, delay: float) -> tuple[float, float]:
    """Return when the last coroutine ended, and when the call that stores began."""
    ids, address = pair.new(count)
    pair.waiter.tell("await_many", ids=ids)
    pair.waiter.begun()
    called = pair.stored("store_many", ids, address, delay)
    return pair.waiter.answer(), called
