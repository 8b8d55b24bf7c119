"""What becomes of the command where its standard streams, or its time, come to an end too early."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from upshot.record import Payload
from upshot_conformance.records import success

from .places import COMMAND, Command, Place

UPSHOT = (sys.executable, "-m", "upshot")


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in a folder; Python buffers what it prints, as it does unless told."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    clean.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean | more,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_record_that_cannot_be_printed_is_not_forgotten(
    place: Place, tmp_path: Path, form: str
) -> None:
    place.client.store(success("it", 1))
    command = shlex.join([*COMMAND, "show", "it", "--forget", *place.words])

    full = shell(f"{command} {form} > /dev/full", tmp_path)

    assert full.returncode == 1
    assert "the output cannot be written" in full.stderr
    assert place.ids() == {"it"}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_value_that_cannot_be_read_here_is_not_forgotten(
    here: Command, place: Place, form: tuple[str, ...]
) -> None:
    place.client.store(success("it", 1)._replace(outcome=Payload("json;offloaded", b"elsewhere")))

    done = here("show", "it", "--forget", *form, *place.words)

    assert done.returncode == 1
    assert "set result_offload" in done.stdout
    assert "it was not forgotten" in done.stderr
    assert place.ids() == {"it"}


def test_a_file_that_cannot_be_read_is_one_line(place: Place, tmp_path: Path) -> None:
    done = shell(shlex.join([*COMMAND, "import", "/proc/self/mem", *place.words]), tmp_path)

    assert done.returncode == 1
    assert done.stderr == f"Error: '/proc/self/mem' cannot be read: {os.strerror(5)}\n"


def test_a_stdin_that_is_closed_is_at_its_end(place: Place, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from upshot import App\napp = App()\n")
    purge = shlex.join([*UPSHOT, "-A", "tasks", "purge"])

    imported = shell(shlex.join([*COMMAND, "import", "--json", *place.words]) + " <&-", tmp_path)
    purged = shell(f"{purge} <&-", tmp_path)

    assert (imported.returncode, '"stored": 0' in imported.stdout) == (0, True)
    assert purged.returncode == 1
    assert "nothing was done: no answer" in purged.stderr


@pytest.mark.parametrize("command", [UPSHOT, (str(Path(sys.executable).with_name("upshot")),)])
def test_ctrl_c_before_the_command_has_begun_is_silent(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")  # while it is imported

    done = shell(shlex.join([*command, "backends"]), tmp_path, PYTHONPATH=str(tmp_path))

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("columns", ["0", "none"])
def test_a_width_of_nothing_hides_nothing(place: Place, tmp_path: Path, columns: str) -> None:
    place.fill()

    done = shell(shlex.join([*COMMAND, "list", *place.words]), tmp_path, COLUMNS=columns)

    assert done.stdout.splitlines()[0].startswith("changed (UTC)")  # a table, as in any pipe
