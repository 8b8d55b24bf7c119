"""The command in the test's own process: an interpreter of its own takes longer than most tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from upshot.cli import main

__all__ = ["CommandHere", "Done"]


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class CommandHere:
    """Runs `upshot` in a folder, with settings that the environment has for as long.

    Attributes:
        folder: where it is run; modules there are imported anew each time.
        settings: the variables of the environment.
        captured: what the test's process prints.
    """

    folder: Path
    settings: dict[str, str]
    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **more: str) -> Done:
        """Run it with `arguments`, and with `more` variables."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["upshot", *arguments])
            patch.setattr(sys, "path", [*sys.path])
            patch.setenv("COLUMNS", "200")
            for name, value in (self.settings | more).items():
                patch.setenv(name, value)
            self.captured.readouterr()  # what came before is not the command's
            try:
                code = main()
            finally:
                sys.modules.pop("jobs", None)
        printed = self.captured.readouterr()
        print(printed.out, printed.err, sep="\n")  # where passwords are looked for
        assert "Traceback" not in printed.err
        return Done(code, printed.out, printed.err)
