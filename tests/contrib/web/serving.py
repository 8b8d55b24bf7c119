"""`upshot web` as a process of its own, as its user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import AS_IN_FRONT

__all__ = ["WebProcess"]

SECONDS = 60


class WebProcess:
    """The page of `jobs.py` in a folder.

    Args:
        folder: where it is.
        options: of the command.
        environment: what it has besides the present variables.
    """

    def __init__(
        self, folder: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.errors = folder / f"web-{os.urandom(4).hex()}.log"
        with self.errors.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(*AS_IN_FRONT, sys.executable, "-m", "upshot", "-A", "jobs", "web"),
                    *("--port", "0", *options),
                ],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://\S+", self.said)
        assert found, self.said + self.output()
        self.link = found[0]

    def output(self) -> str:
        """Return what it has said on stderr so far."""
        return self.errors.read_text()

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it by a signal, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
