"""What is aimed at, and whether a run has reached it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from rich.table import Table

from benchmarks.figures import Figure, Ratio, number

__all__ = ["BEST", "COLUMNS", "OURS", "TARGETS", "Target", "Verdict", "board", "verdicts"]

COLUMNS: Final = ("from", "service", "figure", "target", "measured", "result")
"""What the cells of a verdict are."""

OURS: Final = "upshot"
BEST: Final = "best peer"
"""Against whom, if it is whichever task queue of the others has the best median in this run."""

_FLOOR: Final = "raw"


@dataclass(frozen=True)
class Target:
    """One bound.

    Attributes:
        service, figure: what is measured, as figures have them.
        against: a contender, or `BEST`; "" for a bound on the figure itself, in its unit.
        bound: how many times the other's the figure may be or must be; of "at least", how many
            times better it must be, whichever direction that is for the figure.
        kind: "at most" or "at least".
        source: the row of the list of targets that it is from.
    """

    service: str
    figure: str
    against: str
    bound: float
    kind: Literal["at most", "at least"] = "at most"
    source: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a run says about a target.

    Attributes:
        target: which.
        against: the contender that it was measured against; "" if it is a bound on the figure.
        measured: the median with the quartiles; None if it was not measured.
        met: whether the median keeps to the bound; None if it was not measured.
    """

    target: Target
    against: str
    measured: Ratio | None
    met: bool | None

    @property
    def cells(self) -> tuple[str, ...]:
        """How a table shows it."""
        target, against = self.target, self.against or self.target.against
        wanted = f"{target.kind} {number(target.bound)}"
        if against:
            wanted += f" x as good as {against}" if target.kind == "at least" else f" x {against}"
        measured = "" if self.measured is None else _shown(self.measured)
        met = {True: "met", False: "**missed**", None: "not measured"}[self.met]
        return target.source, target.service, target.figure, wanted, measured, met


def _shown(measured: Ratio) -> str:
    middle, low, high = map(number, measured)
    return f"{middle} ({low} to {high})"


def _row(
    service: str,
    floor: tuple[float | None, float | None, float | None],
    celery: tuple[float | None, float | None, float | None],
    batch: str = "fetch 1000 at once",
) -> Iterator[Target]:
    """Yield what a row of the table says of store, fetch and batch: to the driver, to Celery."""
    names = "store small", "fetch small", batch
    processor = "store small, processor", "fetch small, processor", batch
    for name, bound in zip(processor, floor, strict=True):
        if bound is not None:
            yield Target(service, name, _FLOOR, bound, source="table, floor")
    for name, bound in zip(names, celery, strict=True):
        if bound is not None:
            yield Target(service, name, "celery", bound, "at least", source="table, Celery")


_WAKE: Final = "one waiter, from the call that stores"
_JOIN: Final = "one call for 1 000"
_MANY: Final = "one call for 10 000"
_RATE: Final = "tasks, submitted and collected"
_TRIP: Final = "one round trip, median"
_THREADS: Final = "200 threads wait"


def _listed() -> Iterator[Target]:
    yield from _row("redis", (1.0, 1.0, 2.0), (4, 10, 25))
    yield from _row("memcached", (1.5, 1.3, 1.0), (2.5, 2, 2.5))
    yield from _row("mongodb", (1.3, 1.3, 1.3), (1.1, 1.2, 50))
    yield from _row("sqlite", (1.6, 2.0, 1.5), (12, 100, 200))
    yield from _row("postgresql", (1.5, 1.6, 1.4), (8, 60, 500))
    yield from _row("rpc", (1.4, None, None), (3, None, None))
    source = "table, batch"
    yield Target("rpc", _JOIN, _FLOOR, 1 / 2, "at least", source)
    yield Target("rpc", _JOIN, "celery", 5, "at least", source)
    source = "table, wake"
    yield Target("redis", _WAKE, _FLOOR, 1.2, source=source)
    yield Target("redis", _WAKE, "celery", 0.5, source=source)
    yield Target("memcached", _WAKE, "", 10, source=source)
    yield Target("mongodb", _WAKE, "", 4, source=source)
    yield Target("sqlite", _WAKE, "", 1, source=source)
    yield Target("sqlite", "one thread waits: processor meanwhile", "", 1, source=source)
    yield Target("postgresql", _WAKE, _FLOOR, 1.6, source=source)
    yield Target("rpc", _WAKE, _FLOOR, 1.3, source=source)
    yield Target("rpc", _WAKE, "celery", 0.6, source=source)
    source = "200 waiters"
    for service in ("redis", "rpc", "postgresql"):
        yield Target(service, f"{_THREADS}: connections more than for one", "", 2, source=source)
        yield Target(service, f"{_THREADS}: processor meanwhile", "", 1, source=source)
        home = f"{_THREADS}: from the first stored to the last back"
        yield Target(service, home, "celery", 0.5, source=source)
        yield Target(service, f"{_THREADS}: failed", "", 0, source=source)
    source = "10 000 ids"
    yield Target("redis", f"{_MANY}: connections", "", 1, source=source)
    yield Target("redis", f"{_MANY}: threads besides the caller's", "", 1, source=source)
    yield Target("redis", _MANY, "", 12_000, "at least", source)
    source = "end to end"
    yield Target("redis", _RATE, BEST, 1.2, "at least", source)
    yield Target("rpc", _RATE, "celery", 3, "at least", source)
    yield Target("sqlite", _RATE, "huey", 4, "at least", source)
    yield Target("sqlite", _TRIP, "", 3, source=source)
    yield Target("redis", _TRIP, "celery", 0.4, source=source)
    yield Target("redis", _TRIP, BEST, 1.0, source=source)
    source = "round trips"
    for service in ("redis", "rpc"):
        yield Target(service, "submit: round trips", "", 1, source=source)
        yield Target(service, "worker: round trips, per task", "", 2, source=source)
    for service in ("redis", "memcached", "mongodb", "postgresql"):
        for operation in ("store", "fetch", "forget"):
            yield Target(service, f"{operation}: round trips", "", 1, source=source)
    yield Target("rpc", "store: round trips", "", 1, source=source)
    yield Target("redis", "commands of a task, client and worker", "", 6, source=source)
    # 400 µs where huey takes 358: the bound is on a machine that nobody else has.
    yield Target("redis", "processor of the worker, per task", "huey", 400 / 358, source=source)
    yield Target("redis", "commands of an idle worker", "", 2, source=source)
    yield Target("redis", "processor of an idle worker", "", 0.5, source=source)
    source = "memory"
    yield Target("redis", "memory of a small result", "celery", 0.7, source=source)
    yield Target("redis", "idle worker, all processes: resident", "celery", 0.45, source=source)
    yield Target("redis", "import, processor", "celery", 0.3, source=source)
    yield Target("redis", "import and an app, processor", "celery", 0.3, source=source)
    yield Target("redis", "client after its first result: resident", "celery", 0.6, source=source)
    # Flat: an allocator keeps a page now and then.
    yield Target("redis", "worker, after 20 000 more tasks: growth", "", 1, source=source)
    for operation in ("store", "fetch"):
        for service in ("redis", "memcached", "mongodb", "sqlite", "postgresql"):
            yield Target(service, f"{operation} 1 MB", BEST, 1.0, source="1 MB results")


TARGETS: Final = tuple(_listed())
"""All of them, in the order of the list that they are from."""


def verdicts(figures: Iterable[Figure], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """Compare figures with targets; one verdict for each target, in their order."""
    known = {(each.service, each.name): each for each in figures}
    return [_verdict(each, known.get((each.service, each.figure))) for each in targets]


def board(found: Iterable[Verdict]) -> Table:
    """Return what was measured of the targets as a table for a terminal."""
    shown = Table(title="Targets", title_justify="left")
    for column in COLUMNS:
        shown.add_column(column)
    for each in found:
        if each.met is not None:
            *cells, result = each.cells
            shown.add_row(*cells, result.strip("*"), style=None if each.met else "bold")
    return shown


def _verdict(target: Target, figure: Figure | None) -> Verdict:
    if figure is None or OURS not in figure.samples:
        return Verdict(target, "", None, None)
    against = target.against
    if against == BEST:
        against = _best(figure) or ""
        if not against:
            return Verdict(target, "", None, None)
    measured = figure.ratio(OURS, against) if against else figure.spread(OURS)
    if measured is not None and against and target.kind == "at least":
        # "Times better" of a figure that is better when lower is how often ours goes into theirs.
        measured = measured if figure.better == "higher" else figure.ratio(against, OURS)
    if measured is None:
        return Verdict(target, against, None, None)
    median = measured[0]
    met = median <= target.bound if target.kind == "at most" else median >= target.bound
    return Verdict(target, against, measured, met)


def _best(figure: Figure) -> str | None:
    peers = [each for each in figure.samples if each not in {OURS, _FLOOR}]
    pick = min if figure.better == "lower" else max
    return pick(peers, key=figure.median) if peers else None
