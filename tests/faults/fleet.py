"""Several workers, which are killed at random and replaced at once."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.endtoend.patience import comes_to
from upshot import clock

_KINDS: Final = ("process",) * 27 + ("group",) + ("supervisor",) * 2
"""How often each way to die is chosen: a new worker costs a hundred times a new process."""


class Fleet:
    """Keeps a number of workers running while it kills them with SIGKILL.

    Args:
        start: starts one worker.
        count: how many run at a time.
        dice: chooses whom to kill.
    """

    def __init__(self, start: Callable[[], Any], count: int, dice: random.Random) -> None:
        self._start = start
        self._dice = dice
        self.started = [start() for _ in range(count)]
        """Every worker there ever was."""
        self.running = list(self.started)
        self.killed: dict[int, float] = {}
        """Each task process that was killed, or lost its parent, and when."""
        self.strikes = 0

    def strike(self) -> None:
        """Kill one task process, one worker with all its processes, or a supervisor only."""
        worker = self._dice.choice(self.running)
        kind = self._dice.choice(_KINDS)
        children = worker.children()
        if kind == "process":
            if not children:  # they are being replaced
                return
            children = [self._dice.choice(children)]
            os.kill(children[0], signal.SIGKILL)
            self.strikes += 1
        elif kind == "supervisor":
            worker.process.kill()
            worker.process.wait()
            self._replace([worker])
        else:
            worker.kill()
            self._replace([worker])
        self.killed |= dict.fromkeys(children, clock.monotonic())

    def strike_all(self) -> None:
        """Kill all workers in one moment, with all their processes."""
        children = [pid for worker in self.running for pid in worker.children()]
        for worker in self.running:
            os.killpg(worker.process.pid, signal.SIGKILL)
        self.killed |= dict.fromkeys(children, clock.monotonic())
        for worker in self.running:
            worker.process.wait()
        self._replace(self.running)

    def stop(self, timeout: float) -> list[int]:
        """Stop all workers in order, wait until no process is left, and return their exit codes."""
        comes_to(lambda: all(worker.children() for worker in self.running), True)
        for worker in self.running:
            worker.process.send_signal(signal.SIGTERM)
        codes = [worker.process.wait(timeout) for worker in self.running]
        comes_to(self.survivors, [])
        return codes

    def survivors(self) -> list[int]:
        """Return the processes that still run of all workers there ever were."""
        groups = {worker.process.pid for worker in self.started}
        return [pid for pid, state, group in _processes() if group in groups and state != "Z"]

    def output(self) -> str:
        """Return what all workers have logged."""
        return "".join(worker.output() for worker in self.started)

    def _replace(self, gone: list[Any]) -> None:
        self.strikes += len(gone)
        fresh = [self._start() for _ in gone]
        self.started += fresh
        self.running = [each for each in self.running if each not in gone] + fresh


def _processes() -> list[tuple[int, str, int]]:
    """Return each process of this machine with its state and its group."""
    found: list[tuple[int, str, int]] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:  # it has just ended
            continue
        state, _, group, *_ = stat.rpartition(")")[2].split()
        found.append((int(folder.name), state, int(group)))
    return found
