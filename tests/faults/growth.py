"""What does not go back to where it was: measured over rounds of the same work."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from .scoreboard import Score

__all__ = [
    "LIMIT",
    "MEGABYTE",
    "NOISE",
    "Caller",
    "Series",
    "judge",
    "peak_of",
    "settled_slope",
    "slope",
]

Measure: TypeAlias = dict[str, int]
"""What `measure` of `programs/growing.py` returns."""

MEGABYTE: Final = 2**20
LIMIT: Final = 1 * MEGABYTE
"""Bytes of RSS that 100 000 tasks, or calls, may cost for good: goal G12."""

NOISE: Final = 2  # descriptors and threads that a pool may have more, or fewer
POOL: Final = 40
"""Descriptors of the connections that asyncio's threads may need at one moment: `awaits` only."""

_PER_CALL: Final = 0.6  # blocks that each call may leave: less than one
_ONCE: Final = 15  # and each round: what it measured is kept
_FEWEST: Final = 15  # calls in a round, of which a leak of theirs shows in blocks
_PAGES: Final = 4 * MEGABYTE
"""RSS that may come and go in any run, however short: the allocator's."""


def peak_of(pid: int) -> int:
    """Return the most memory that a process has had, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]  # it is there


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Return by how much the values grow per 1 of place: the line of least squares."""
    count = len(places)
    middle, mean = sum(places) / count, sum(values) / count
    spread = sum((place - middle) ** 2 for place in places)
    together = sum(
        (place - middle) * (value - mean) for place, value in zip(places, values, strict=True)
    )
    return together / spread if spread else 0.0


def settled_slope(points: Sequence[tuple[int, int]]) -> float:
    """Return the slope of values over places, without the first fifth of the way: the warm-up."""
    ordered = sorted(points)
    first, last = ordered[0][0], ordered[-1][0]
    settled = [point for point in ordered if point[0] >= first + (last - first) / 5]
    return slope([place for place, _ in settled], [value for _, value in settled])


@dataclass(frozen=True)
class Series:
    """One process through the rounds of one kind of work.

    Attributes:
        kind: the work.
        who: "caller" or "worker".
        each: how often it was done in each round.
        measures: after the round to warm up, and after each one that counts.
    """

    kind: str
    who: str
    each: int
    measures: Sequence[Measure]

    def steps(self, name: str) -> list[int]:
        """Return by how much a measure rose in each round."""
        values = [measure[name] for measure in self.measures]
        return [after - before for before, after in itertools.pairwise(values)]

    def rss_slope(self) -> float:
        """Return the bytes of RSS that 100 000 calls cost."""
        places = [place * self.each for place in range(len(self.measures))]
        return 100_000 * slope(places, [measure["rss"] for measure in self.measures])

    def complaints(self) -> list[str]:
        """Return what grew, in sentences.

        What leaks grows in every round; what is made once, or comes and goes, does not. So of
        blocks the round is judged that grew least, and of all else the whole.
        """
        found: list[str] = []
        name = f"{self.kind}, {self.who}"
        least = min(self.steps("blocks"))
        if self.each >= _FEWEST and least > _PER_CALL * self.each + _ONCE:
            found.append(f"{name}: blocks grew by {self.steps('blocks')} in {self.each} calls each")
        most = {"descriptors": POOL if self.kind == "awaits" else NOISE, "threads": NOISE}
        found += [
            f"{name}: {what} grew by {self.steps(what)}"
            for what, allowed in most.items()
            if sum(self.steps(what)) > allowed
        ]
        grown = sum(self.steps("rss"))
        calls = self.each * (len(self.measures) - 1)
        if grown > _PAGES + LIMIT * calls / 100_000:
            found.append(f"{name}: RSS grew by {grown / MEGABYTE:.1f} MB in {calls} calls")
        return found


class Caller:
    """A process that does some kinds of work, one after the other.

    Args:
        folder: where `jobs.py` is.
        rounds: how many are measured.
        orders: how often each kind is done in all.
    """

    def __init__(self, folder: Path, rounds: int, orders: dict[str, int]) -> None:
        arguments = [str(rounds), *(f"{kind}={count}" for kind, count in orders.items())]
        self.calls = sum((rounds + 1) * max(1, count // rounds) for count in orders.values())
        """How many calls it makes, those to warm up included."""
        self._kinds = list(orders)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def series(self, timeout: float) -> list[Series]:
        """Return all that it measured, once it has ended."""
        told, _ = self._process.communicate(timeout=timeout)
        found = [json.loads(line) for line in told.splitlines()]
        assert [each["kind"] for each in found] == self._kinds, "it failed; its error stands above"
        return [
            Series(each["kind"], who, each["each"], each[who])
            for each in found
            for who in ("caller", "worker")
        ]


def judge(score: Score, series: Sequence[Series], *, spared: Sequence[str] = ()) -> None:
    """Count what grew as surprises, but for the callers of `spared` kinds of work."""
    for each in series:
        if not (each.who == "caller" and each.kind in spared):
            for complaint in each.complaints():
                score.surprise(complaint)
