"""Runs pytest in a process of its own, as a third party would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest said."""

    code: int
    text: str


def run_suite(
    folder: Path,
    *arguments: str,
    path: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    plugins: Sequence[str] = (),
    timeout: float = 300,
) -> Outcome:
    """Run the shipped suite from `folder`, which is not this repository.

    Args:
        folder: the working directory, and pytest's root.
        arguments: added to the command line.
        path: what to put on the import path.
        environment: more environment variables.
        plugins: pytest plugins to load besides the suite's.
        timeout: seconds after which the run counts as hung.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = [*map(str, path), str(HERE), *(os.path.abspath(each) for each in given if each)]
    loaded = [word for name in (*plugins, "upshot_conformance.plugin") for word in ("-p", name)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *loaded, "-p", "no:cacheprovider"),
            *("-W", "error", f"--rootdir={folder}", "--tb=short", *arguments),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(search),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


SUITE = ("--pyargs", "upshot_conformance")

SUITE_SECONDS = 900
"""How long the whole suite may take on one service; two or three minutes are usual."""


def install(source: Path, site: Path) -> None:
    """Build the distribution in `source`, a folder that may be written to, and put it in `site`.

    What it requires is installed already; nothing is fetched.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--no-build-isolation", f"--target={site}", str(source)),
        ],
        check=True,
        timeout=120,
    )


def register(folder: Path, group: str, entries: Mapping[str, str], *, name: str) -> None:
    """Make a distribution in `folder` that offers entry points, without installing anything."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
