"""What the real command makes of slips and of odd surroundings: one line, and no password."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

URL = "redis://:s3cr3t@h"
JOBS = """
    from upshot import App

    app = App("jobs")


    @app.task
    def add(x, y):
        return x + y
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the command sees: no settings but for a database of its own."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    return clean | {"UPSHOT_BROKER_URL": f"sqlite:///{tmp_path}/queue.db"}


@pytest.fixture
def upshot(tmp_path: Path, environment: dict[str, str]) -> Command:
    """Runs `upshot` in a folder that has `jobs.py`."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "upshot", *arguments],
            cwd=tmp_path,
            env=environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    "line",
    [
        f"{URL}",
        f"--{URL}",
        f"backends {URL}",
        f"backends ddl {URL} {URL}",
        f"-A jobs worker --grace {URL}",
        f"-A jobs worker --threads {URL}",
        f"-A jobs worker --loglevel {URL}",
        f"-A jobs call add --kwargs {URL}",
        f"-A {URL} worker",
        f"-A jobs:{URL} worker",
        f"-A {URL}.py worker",
    ],
)
def test_no_slip_on_the_command_line_shows_a_password(upshot: Command, line: str) -> None:
    done = upshot(*line.split())

    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "***" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_no_slip_in_the_environment_shows_a_password(upshot: Command) -> None:
    shown = upshot("config", UPSHOT_ACCEPT_CONTENT=URL)
    as_json = upshot("config", "--json", UPSHOT_ACCEPT_CONTENT=URL)
    refused = upshot("-A", "jobs", "call", "add", "1", "1", UPSHOT_ACCEPT_CONTENT=URL)
    app = upshot("result", "it", UPSHOT_APP=URL)

    assert [refused.returncode, app.returncode] == [2, 2]
    for done in (shown, as_json, refused, app):
        assert "redis://:***@h" in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


def test_a_module_that_fails_over_a_url_shows_no_password(upshot: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"url = {URL!r}\nraise ValueError(f'what is {{url}}?')\n")
    (tmp_path / "slip.py").write_text(f"raise ImportError('no {URL}')\n")

    for name in ("bad", "slip"):
        done = upshot("-A", name, "result", "it")
        assert done.returncode == 2
        assert "redis://:***@h" in done.stderr
        assert "s3cr3t" not in done.stderr


def test_a_url_in_the_place_of_the_module_says_where_urls_belong(upshot: Command) -> None:
    done = upshot("-A", URL, "worker")

    assert done.stderr.count("\n") == 1
    assert "UPSHOT_BROKER_URL" in done.stderr
    assert done.stderr.count("redis") == 1
    assert "did you mean redis" not in done.stderr
