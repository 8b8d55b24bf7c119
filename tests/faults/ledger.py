"""What tasks did, written down where no fault of an experiment reaches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One line: a task did something in a process, at a moment of this machine's steady clock."""

    task_id: str
    what: str
    pid: int
    moment: float


class Ledger:
    """A file to which each task that begins adds one line, in one write.

    It is on the local disk, so that it knows of runs whose worker died before anything was stored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def entries(self) -> list[Entry]:
        """Return what was written down, in its order."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [
            Entry(task_id, what, int(pid), float(moment))
            for task_id, what, pid, moment in map(str.split, lines)
        ]

    def count(self) -> int:
        """Return how many entries there are, without reading them."""
        return self.path.read_bytes().count(b"\n")

    def runs(self) -> Counter[str]:
        """Return how often each task's body has begun, by task id."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return Counter(line.split(" ", 1)[0] for line in lines)

    def repeated(self) -> int:
        """Return how many runs were not their task's first."""
        return sum(count - 1 for count in self.runs().values())
