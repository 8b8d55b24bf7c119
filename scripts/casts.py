"""Records what the command line looks like, for the pages that show it.

python -m scripts.casts              records all scenes anew into docs/casts/
python -m scripts.casts progress     this one

Everything runs: the worker, the tasks, the service. Nothing is edited afterwards, but long silences
are shortened.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.cast_picture import picture
from scripts.cast_recording import record
from scripts.generated import ROOT

__all__ = ["SCENES", "Scene", "main", "recorded"]

FOLDER: Final = ROOT / "docs" / "casts"
_COMMAND: Final = str(Path(sys.executable).with_name("upshot"))
_ENDS: Final = 30.0  # seconds for a worker to stop

_PROGRAM: Final = """\
import time

from upshot import App, current_task

app = App()


@app.task
def import_orders(rows: int) -> int:
    for row in range(rows):
        time.sleep(0.06)
        current_task().progress(row + 1, rows)
    return rows


@app.task
def send_invoice(number: int, total: float) -> str:
    if total <= 0:
        raise ValueError(f"invoice {number} has a total of {total}")
    return f"invoice {number} sent"
"""


@dataclass(frozen=True)
class Scene:
    """What is recorded.

    Attributes:
        title: what can be seen, in a sentence.
        before: commands of `upshot -A shop` that run before, unseen.
        awaited: whether the worker is to be done with what they sent before the recording begins.
        commands: what somebody types.
        columns, lines: size of the terminal.
    """

    title: str
    before: Sequence[str]
    awaited: bool
    commands: Sequence[str]
    columns: int = 84
    lines: int = 14


SCENES: Final = {
    "progress": Scene(
        title="Three tasks are sent, and watched until they end",
        before=(),
        awaited=True,
        commands=(
            "upshot -A shop call import_orders 60 --id monday",
            "upshot -A shop call import_orders 30 --id tuesday",
            "upshot -A shop call send_invoice 17 0.0 --id invoice-17",
            "upshot -A shop results watch monday tuesday invoice-17",
        ),
    ),
    "failure": Scene(
        title="A failed task and its traceback are found from the shell",
        before=(
            "call import_orders 5 --id monday",
            "call send_invoice 16 9.5 --id invoice-16",
            "call send_invoice 17 0.0 --id invoice-17",
        ),
        awaited=True,
        commands=(
            "upshot -A shop results list --state failure",
            "upshot -A shop results show invoice-17",
        ),
        lines=22,
    ),
    "status": Scene(
        title="Workers, queues and the tasks that run",
        before=("call import_orders 200 --id monday", "call import_orders 200 --id tuesday"),
        awaited=False,
        commands=("upshot -A shop status",),
    ),
}
"""Every scene by the name of its picture."""


def recorded(name: str) -> str:
    """Run a scene in a folder of its own, and return its picture as SVG.

    Raises:
        subprocess.CalledProcessError: a command that runs before failed.
    """
    scene = SCENES[name]
    with tempfile.TemporaryDirectory(prefix="cast-") as made:
        folder = Path(made)
        (folder / "shop.py").write_text(_PROGRAM)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": made,
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        worker = subprocess.Popen(  # noqa: S603 - our own command
            [_COMMAND, "-A", "shop", "worker", "-c", "2", "-l", "critical"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for command in scene.before:
                _upshot(command, folder, environment)
            if scene.awaited:
                _upshot("call --wait import_orders 1", folder, environment)
            frames = record(
                [(each, [_COMMAND, *shlex.split(each)[1:]]) for each in scene.commands],
                folder,
                environment,
                columns=scene.columns,
                lines=scene.lines,
            )
        finally:
            worker.terminate()
            worker.wait(_ENDS)
    return picture(frames, title=scene.title, columns=scene.columns, lines=scene.lines)


def _upshot(command: str, folder: Path, environment: dict[str, str]) -> None:
    subprocess.run(  # noqa: S603 - our own command
        [_COMMAND, "-A", "shop", *shlex.split(command)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def main() -> None:
    """Record what the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.casts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scene", nargs="*", help=", ".join(SCENES))
    names = parser.parse_args().scene or list(SCENES)
    if unknown := [name for name in names if name not in SCENES]:
        parser.error(f"no such scene: {', '.join(unknown)}; there are {', '.join(SCENES)}")
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        (FOLDER / f"{name}.svg").write_text(recorded(name))


if __name__ == "__main__":
    main()
