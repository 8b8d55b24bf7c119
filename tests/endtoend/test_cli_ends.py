"""What becomes of the command where its standard streams, or its time, come to an end too early."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from upshot_conformance.records import success

from .places import COMMAND, Place

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
