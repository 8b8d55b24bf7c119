"""The side of whoever asks a process to measure."""

from __future__ import annotations

import compileall
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar, final

__all__ = ["ROOT", "MissingError", "Player", "compile_ours", "in_turn", "python_of"]

ROOT: Final = Path(__file__).parents[1]
ENVIRONMENTS: Final = ROOT / ".venv-peers"
_PATIENCE: Final = 150.0  # seconds for an answer: a run without end says less than one with a gap


class MissingError(Exception):
    """The contender has no way to do it."""


def python_of(environment: str) -> str:
    """Return the interpreter of an environment; "" is this one."""
    return str(ENVIRONMENTS / environment / "bin" / "python") if environment else sys.executable


def compile_ours() -> None:
    """Write the byte code of what is measured, as an installer does, and did for the peers.

    Where Python is told not to write any, as in many containers, each process would otherwise
    compile all of upshot, and keep the memory that it took.
    """
    for folder in ("core", "backends", "benchmarks"):
        compileall.compile_dir(ROOT / folder, quiet=1)


@final
class Player:
    """A process that takes orders; use it as a context manager.

    Args:
        name: whose it is.
        environment: whose packages it needs; "" for upshot's.
        arguments: the module to run, and what comes after it on the command line.
        variables: more of the environment.
    """

    def __init__(
        self,
        name: str,
        environment: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python_of(environment), "-W", "ignore", "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def ask(self, order: str, **keywords: object) -> Any:
        """Have it do something, and return the answer.

        Raises:
            MissingError: it has no way to.
            RuntimeError: it failed, or has gone.
        """
        self.tell(order, **keywords)
        return self.answer()

    def tell(self, order: str, **keywords: object) -> None:
        """Have it begin something; `hear` and `answer` take what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **keywords}) + "\n")
        self._process.stdin.flush()

    def begun(self) -> None:
        """Hear that the last order is being done, of one that says so before its answer.

        Raises:
            MissingError, RuntimeError: as `ask`; there comes no answer then.
        """
        self._heed()

    def answer(self) -> Any:
        """Return the answer to the last order.

        Raises:
            MissingError, RuntimeError: as `ask`.
        """
        return self._heed()["answer"]

    def _heed(self) -> dict[str, Any]:
        said = self.hear()
        if "missing" in said:
            raise MissingError
        if "error" in said:
            raise RuntimeError(f"{self.name}: {said['error']}")
        return said

    def hear(self) -> dict[str, Any]:
        """Return the next line that it says; end it if it says nothing for too long."""
        assert self._process.stdout is not None
        end = threading.Timer(_PATIENCE, self._process.kill)
        end.start()
        try:
            line = self._process.stdout.readline()
        finally:
            end.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def in_turn(
    players: Sequence[N], rounds: int, act: Callable[[N], object], longest: float = math.inf
) -> None:
    """Have each player act once a round, so that all meet the same machine.

    The order changes from round to round: nobody always comes after the same one. Whoever has no
    way to do it is left out, and whoever fails, with a line on stderr.

    Args:
        players: who takes part.
        rounds: how many at most.
        act: what a player does.
        longest: seconds after which no more round begins; one there is in any case.
    """
    left = list(players)
    until = time.monotonic() + longest
    for number in range(rounds):
        if number and time.monotonic() > until:
            return
        shift = number % max(1, len(left))
        for player in left[shift:] + left[:shift]:
            try:
                act(player)
            except MissingError:
                left.remove(player)
            except RuntimeError as exc:
                print(f"left out: {exc}", file=sys.stderr)
                left.remove(player)
