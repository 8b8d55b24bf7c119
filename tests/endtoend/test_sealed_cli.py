"""Keys on the command line: made there, used by real workers, and never printed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

JOBS = """
from upshot import App

app = App("jobs")


@app.task
def echo(value):
    return value * 2
"""
SECRET = "nobody-else-may-read-this"


@pytest.fixture
def upshot(tmp_path: Path) -> Command:
    """Runs `upshot` in a folder that has `jobs.py`, with a database of its own."""
    (tmp_path / "jobs.py").write_text(JOBS)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    clean["UPSHOT_BROKER_URL"] = f"sqlite:///{tmp_path}/queue.db"

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "upshot", *arguments],
            cwd=tmp_path,
            env=clean | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def keys(upshot: Command, tmp_path: Path) -> dict[str, str]:
    """Settings with a key of each kind, one of them in a file."""
    file = tmp_path / "keys"
    file.write_text(upshot("generate-key").stdout)
    return {
        "UPSHOT_SIGNING_KEYS": upshot("generate-key", "--id", "2026-11").stdout.strip(),
        "UPSHOT_ENCRYPTION_KEYS": f"file:{file}",
    }


def kept(folder: Path) -> bytes:
    """Return all that the database has, files beside it included."""
    with closing(sqlite3.connect(folder / "queue.db")) as database:
        return "\n".join(database.iterdump()).encode() + bytes.fromhex(
            "".join(
                row[0] or "" for row in database.execute("SELECT hex(body) FROM upshot_results")
            )
        )


def test_a_task_comes_home_through_a_real_worker(
    upshot: Command, keys: dict[str, str], tmp_path: Path
) -> None:
    sent = upshot("-A", "jobs", "call", "--id", "it", "echo", SECRET, **keys)
    assert sent.returncode == 0, sent.stderr
    worker = upshot("-A", "jobs", "worker", "-c", "1", "--burst", **keys)
    assert worker.returncode == 0, worker.stderr

    shown = upshot("-A", "jobs", "result", "it", "--json", **keys)

    assert json.loads(shown.stdout)["value"] == SECRET * 2
    assert SECRET.encode() not in kept(tmp_path)
    unread = upshot("-A", "jobs", "result", "it", UPSHOT_SIGNING_KEYS=keys["UPSHOT_SIGNING_KEYS"])
    assert unread.returncode == 1
    assert "encryption_keys" in unread.stderr + unread.stdout
    for done in (sent, worker, shown, unread):
        assert keys["UPSHOT_SIGNING_KEYS"][8:20] not in done.stdout + done.stderr


def test_what_a_stranger_has_sent_is_not_run(
    upshot: Command, keys: dict[str, str], tmp_path: Path
) -> None:
    upshot("-A", "jobs", "call", "--id", "it", "echo", "forged")

    worker = upshot("-A", "jobs", "worker", "-c", "1", "--burst", **keys)

    assert "is put away: the message is refused: it is not signed" in worker.stderr
    found = upshot("-A", "jobs", "result", "it", **keys)
    assert found.returncode == 1
    assert "not signed" in found.stderr
    assert "Traceback" not in found.stderr + worker.stderr


def test_large_results_are_pruned(upshot: Command, tmp_path: Path) -> None:
    large = {
        "UPSHOT_RESULT_OFFLOAD": f"file://{tmp_path}/large",
        "UPSHOT_RESULT_OFFLOAD_THRESHOLD": "1000",
    }
    upshot("-A", "jobs", "call", "--id", "it", "echo", "x" * 1000, **large)
    upshot("-A", "jobs", "worker", "-c", "1", "--burst", **large)
    (file,) = (path for path in (tmp_path / "large").rglob("*") if path.is_file())
    assert json.loads(upshot("-A", "jobs", "result", "it", "--json", **large).stdout)["value"]
    file.rename(file.with_suffix(".1"))  # as if it had expired long ago

    pruned = upshot("-A", "jobs", "result", "prune", **large)

    assert pruned.returncode == 0
    assert "1" in pruned.stdout
    assert not [path for path in (tmp_path / "large").rglob("*") if path.is_file()]
    assert upshot("-A", "jobs", "result", "it", **large).returncode == 1


def test_config_shows_the_ids_of_keys_alone(upshot: Command, keys: dict[str, str]) -> None:
    for arguments in (["config"], ["-A", "jobs", "config", "--json"]):
        shown = upshot(*arguments, **keys).stdout
        assert "2026-11:***" in shown
        assert keys["UPSHOT_SIGNING_KEYS"][8:20] not in shown


@pytest.mark.parametrize("wrong", ["0123456789abcdef" * 4, "a:0123456789abcdef0", "b:0123456789"])
def test_a_wrong_key_is_one_line_without_it(upshot: Command, wrong: str) -> None:
    done = upshot("config", UPSHOT_SIGNING_KEYS=wrong)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "0123456789" not in done.stderr


def test_what_an_app_has_signed_is_signed_after_a_migration(
    upshot: Command, keys: dict[str, str], tmp_path: Path
) -> None:
    private = f'App("jobs", signing_keys=[{keys["UPSHOT_SIGNING_KEYS"]!r}])'
    (tmp_path / "jobs.py").write_text(JOBS.replace('App("jobs")', private))
    upshot("-A", "jobs", "call", "--id", "it", "echo", "ab")
    upshot("-A", "jobs", "worker", "-c", "1", "--burst")
    new = f"sqlite:///{tmp_path}/new.db"

    done = upshot("-A", "jobs", "results", "migrate", f"sqlite:///{tmp_path}/queue.db", new)

    assert done.returncode == 0, done.stderr
    found = upshot("-A", "jobs", "results", "show", "it", "--json", UPSHOT_RESULT_BACKEND=new)
    assert json.loads(found.stdout)["value"] == "abab", found.stderr


def test_a_value_that_cannot_be_fetched_hides_no_other_record(
    upshot: Command, tmp_path: Path
) -> None:
    large = {
        "UPSHOT_RESULT_OFFLOAD": f"file://{tmp_path}/large",
        "UPSHOT_RESULT_OFFLOAD_THRESHOLD": "1000",
    }
    for task_id, text in (("large", "x" * 1000), ("small", "x")):
        upshot("-A", "jobs", "call", "--id", task_id, "echo", text, **large)
    upshot("-A", "jobs", "worker", "-c", "1", "--burst", **large)
    (tmp_path / "large").rename(tmp_path / "elsewhere")
    (tmp_path / "large").write_bytes(b"")  # no folder: it cannot be read

    listed = upshot("-A", "jobs", "results", "list", "--json", **large)
    shown = upshot("-A", "jobs", "results", "show", "large", **large)

    assert listed.returncode == 0, listed.stderr
    records = {each["id"]: each for each in json.loads(listed.stdout)["records"]}
    assert records["small"]["value"] == "xx"
    assert "result_offload" in records["large"]["unreadable"]
    assert (shown.returncode, "SUCCESS" in shown.stdout) == (1, True)
    assert "unreadable" in shown.stdout
