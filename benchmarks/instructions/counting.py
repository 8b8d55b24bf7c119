"""Counts instructions: starts services and the process that uses them, under valgrind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.instructions.counted import REGION
from benchmarks.instructions.paths import PATHS
from benchmarks.instructions.reference import CALLS
from benchmarks.services import started

__all__ = ["CountingError", "count"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_PATIENCE: Final = 600.0  # seconds that counting may take; without other load it takes 40
_SUMMARY: Final = re.compile(r"^summary: (\d+)$", re.MULTILINE)


class CountingError(Exception):
    """Nothing could be counted; the message says why."""


def count() -> tuple[float, dict[str, float]]:
    """Return the instructions of one call of the reference, and those of each path by its name.

    Raises:
        CountingError: valgrind is not installed, or the counted process failed or took too long.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CountingError(
            "valgrind, which counts instructions, is not installed: run `make services`, "
            "or `apt-get install valgrind`"
        )
    with ExitStack() as stack:
        urls = {"memory": "memory://instructions"}
        for service in {path.service for path in PATHS.values()} - urls.keys():
            urls[service] = stack.enter_context(started(service))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _run(valgrind, urls, folder)
        calls = [CALLS, *(path.calls for path in PATHS.values())]
        reference, *paths = (
            _instructions(folder, number) / times for number, times in enumerate(calls, 1)
        )
    return reference, dict(zip(PATHS, paths, strict=True))


def _run(valgrind: str, urls: dict[str, str], folder: Path) -> None:
    command = [
        valgrind,
        "--tool=callgrind",
        f"--callgrind-out-file={folder}/out",
        "--collect-atstart=no",
        f"--toggle-collect={REGION}",
        f"--dump-after={REGION}",
        "--separate-threads=yes",
        sys.executable,
        "-m",
        "benchmarks.instructions.counted",
        json.dumps(urls),
    ]
    # Nothing of who calls may change what is counted.
    environment = {name: text for name, text in os.environ.items() if "UPSHOT_" not in name}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CountingError(f"counting did not end in {_PATIENCE:.0f} seconds") from None
    if done.returncode:
        raise CountingError(f"the counted process failed:\n{done.stdout}")


def _instructions(folder: Path, number: int) -> int:
    """Return what the main thread took; other threads run whenever the system lets them."""
    dump = folder / f"out.{number}-01"
    found = _SUMMARY.search(dump.read_text()) if dump.exists() else None
    if found is None or found[1] == "0":
        raise CountingError(f"valgrind has counted nothing inside of {REGION}")
    return int(found[1])
