"""The real command in processes of its own, on SQLite: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

JOBS = """
    from datetime import date

    from upshot import App

    app = App("jobs")


    @app.task
    def add(x, y):
        return x + y


    @app.task
    def day():
        return date(2024, 2, 29)


    @app.task
    def fail(text):
        raise KeyError(text)


    @app.task
    def echo(value):
        return value


    @app.task(ignore_result=True)
    def quiet():
        return None
"""


@pytest.fixture
def upshot(tmp_path: Path) -> Command:
    """Runs `upshot` in a folder that has `jobs.py`, with a database of its own."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    clean.pop("COLUMNS", None)  # tests that run in parallel are given a terminal's
    clean["UPSHOT_BROKER_URL"] = f"sqlite:///{tmp_path}/queue.db"

    def run(*arguments: str, answer: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "upshot", *arguments],
            cwd=tmp_path,
            env=clean | more,
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
        )
        print(done.stdout, done.stderr, sep="\n")  # where passwords are looked for
        return done

    return run


def call(upshot: Command, *arguments: str) -> str:
    """Send a task under the id "it", run it, and return what the sender printed."""
    sent = upshot("-A", "jobs", "call", "--id", "it", *arguments)
    assert sent.returncode == 0, sent.stderr
    worker = upshot("-A", "jobs", "worker", "-c", "1", "--burst", "-l", "error")
    assert worker.returncode == 0, worker.stderr
    return sent.stdout


def read(upshot: Command, *options: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON of `upshot result it`."""
    done = upshot("-A", "jobs", "result", "it", "--json", *options)
    return done.returncode, json.loads(done.stdout)


def test_a_call_prints_the_id_that_result_takes(upshot: Command) -> None:
    printed = call(upshot, "jobs.add", "2", "3")

    assert printed.split() == ["it"]
    code, found = read(upshot)
    assert (code, found["state"], found["value"], found["attempts"]) == (0, "SUCCESS", 5, 1)


def test_a_call_with_a_key_that_is_taken_prints_the_id_that_has_it(upshot: Command) -> None:
    call(upshot, "add", "2", "3", "--key", "k")
    again = upshot("-A", "jobs", "call", "add", "9", "9", "--key", "k", "--wait", "-t", "20")
    wrong = upshot("-A", "jobs", "call", "add", "1", "1", "--key", "", "--key-expires", "5")

    assert (again.stdout, again.returncode) == ("5\n", 0)
    assert "the key was taken already" in again.stderr
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "a key has at least one character" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("argument", "value"),
    [("1", 1), ('"1"', "1"), ("one", "one"), ("[1, null]", [1, None]), ("NaN", "NaN")],
)
def test_arguments_are_json_or_else_text(upshot: Command, argument: str, value: object) -> None:
    call(upshot, "echo", argument)

    assert read(upshot)[1]["value"] == value


def test_keyword_arguments_are_an_object(upshot: Command) -> None:
    call(upshot, "add", "--kwargs", '{"x": 1, "y": 2}')
    wrong = upshot("-A", "jobs", "call", "add", "--kwargs", "[1]")

    assert read(upshot)[1]["value"] == 3
    assert wrong.returncode == 2
    assert "--kwargs" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_value_that_is_no_json_is_shown_by_its_repr(upshot: Command) -> None:
    call(upshot, "day")

    found = read(upshot)[1]
    assert (found["value"], found["repr"]) == (None, "datetime.date(2024, 2, 29)")
    assert "datetime.date(2024, 2, 29)" in upshot("-A", "jobs", "result", "it").stdout


def test_a_failed_task_is_exit_code_1_with_its_traceback(upshot: Command) -> None:
    call(upshot, "fail", "[red]gone")

    code, found = read(upshot)
    assert (code, found["state"], found["failure"]["type"]) == (1, "FAILURE", "builtins.KeyError")
    assert "raise KeyError(text)" in found["failure"]["traceback"]
    shown = upshot("-A", "jobs", "result", "it").stdout
    assert "[red]gone" in shown
    assert "raise KeyError(text)" in shown


def test_waiting_prints_the_value_or_the_remote_traceback(upshot: Command, tmp_path: Path) -> None:
    call(upshot, "add", "2", "3")  # waiting for an id that has ended already returns at once
    fine = upshot("-A", "jobs", "call", "add", "9", "9", "--id", "it", "--wait", "-t", "20")
    failed_id = ("--id", "bad")
    upshot("-A", "jobs", "call", "fail", "x", *failed_id)
    upshot("-A", "jobs", "worker", "-c", "1", "--burst")
    failed = upshot("-A", "jobs", "call", "fail", "x", *failed_id, "-t", "20")

    assert (fine.returncode, fine.stdout) == (0, "5\n")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "raise KeyError(text)" in failed.stderr


def test_what_does_not_end_in_time_is_exit_code_124(upshot: Command) -> None:
    call_timeout = upshot("-A", "jobs", "call", "add", "1", "1", "--id", "it", "-t", "0.2")
    code, found = read(upshot, "-t", "0.2")
    looked, _ = read(upshot)

    assert call_timeout.returncode == 124
    assert "QUEUED" in call_timeout.stderr
    assert (code, found["state"], looked) == (124, "QUEUED", 0)


def test_an_unknown_id_is_explained_and_does_not_hang(upshot: Command) -> None:
    done = upshot("result", "nobody", "-A", "jobs")

    assert done.returncode == 0
    assert "PENDING" in done.stdout
    assert "expired" in done.stdout + done.stderr


def test_forget_deletes_the_record_after_printing_it(upshot: Command) -> None:
    call(upshot, "add", "2", "3")

    first, second = read(upshot, "--forget"), read(upshot)
    assert (first[1]["value"], second[1]["state"]) == (5, "PENDING")


def test_an_unknown_task_is_sent_and_near_names_are_given(upshot: Command) -> None:
    done = upshot("-A", "jobs", "call", "jobs.ad", "1", "1")

    assert done.returncode == 0
    assert "jobs.add" in done.stderr
    assert done.stdout.strip() not in ("", "jobs.ad")


def test_nobody_waits_for_a_task_that_keeps_no_result(upshot: Command) -> None:
    done = upshot("-A", "jobs", "call", "quiet", "--wait")

    assert done.returncode == 2
    assert "keeps no result" in done.stderr


def test_values_cannot_drive_the_terminal(upshot: Command) -> None:
    call(upshot, "echo", '"[bold]\\u001b[31m\\u009b2J\\u007f"')

    shown = upshot("-A", "jobs", "result", "it").stdout
    as_json = upshot("-A", "jobs", "result", "it", "--json").stdout
    for text in (shown, as_json):
        assert all(character.isprintable() for line in text.split("\n") for character in line)
    assert "[bold]" in shown
    assert json.loads(as_json)["value"] == "[bold]\x1b[31m\x9b2J\x7f"


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("jbos", "jobs"),
        ("jobs.py", "jobs"),
        ("jobs.app", "jobs:app"),
        ("jobs:ap", "app"),
        ("jobs:date", "not an App"),
        ("jobs:", "MODULE:NAME"),
    ],
)
def test_a_wrong_target_is_one_line_with_what_was_meant(
    upshot: Command, target: str, hint: str
) -> None:
    done = upshot("-A", target, "result", "it")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr.replace(target, "", 1)


def test_no_target_at_all_says_how_to_give_one(upshot: Command) -> None:
    done = upshot("result", "it")

    assert done.returncode == 2
    assert "-A" in done.stderr
    assert "UPSHOT_APP" in done.stderr


def test_the_target_may_stand_anywhere_and_in_the_environment(upshot: Command) -> None:
    behind = upshot("result", "it", "-A", "jobs")
    variable = upshot("result", "it", UPSHOT_APP="jobs")
    nearest = upshot("-A", "wrong", "result", "it", "-A", "jobs", UPSHOT_APP="wrong")

    assert [behind.returncode, variable.returncode, nearest.returncode] == [0, 0, 0]


def test_a_module_that_cannot_be_imported_shows_its_own_traceback(
    upshot: Command, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    (tmp_path / "bad.py").write_text("def f(:\n")

    missing, syntax = (upshot("-A", name, "result", "it") for name in ("broken", "bad"))
    assert (missing.returncode, syntax.returncode) == (2, 2)
    assert "import no_such_library" in missing.stderr
    assert "SyntaxError" in syntax.stderr
    assert "upshot/cli" not in missing.stderr + syntax.stderr


def test_several_apps_are_told_apart(upshot: Command, tmp_path: Path) -> None:
    text = "from upshot import App\none = App()\ntwo = App()\n"
    (tmp_path / "many.py").write_text(text)
    (tmp_path / "none.py").write_text("x = 1\n")

    many, none = upshot("-A", "many", "result", "x"), upshot("-A", "none", "result", "x")
    assert (many.returncode, none.returncode) == (2, 2)
    assert "many:one" in many.stderr
    assert "many:two" in many.stderr
    assert "no App" in none.stderr
    assert upshot("-A", "many:two", "result", "x").returncode == 0


def test_purge_asks_and_counts_by_queue(upshot: Command) -> None:
    for queue in ("default", "default", "other"):
        upshot("-A", "jobs", "call", "add", "1", "1", "--queue", queue)
    refused = upshot("-A", "jobs", "purge", answer="n\n")
    unanswered = upshot("-A", "jobs", "purge")
    done = upshot("-A", "jobs", "purge", "-Q", "default,other", "--yes", "--json")
    again = upshot("-A", "jobs", "purge", "-Q", "default,other", "--yes", "--json")

    assert (refused.returncode, unanswered.returncode) == (1, 1)
    assert json.loads(done.stdout) == {"removed": 3, "queues": {"default": 2, "other": 1}}
    assert json.loads(again.stdout)["removed"] == 0


def test_backends_shows_what_each_service_can_do(upshot: Command) -> None:
    found = json.loads(upshot("backends", "--json").stdout)
    shown = upshot("backends").stdout

    sqlite = next(row for row in found["results"] if row["scheme"] == "sqlite")
    assert sqlite["driver"] == "present"
    assert sqlite["capabilities"]["shared"] is True
    assert {"memory", "sqlite"} <= {row["scheme"] for row in found["brokers"]}
    assert "max_record_bytes" in shown
    assert "yes" in shown


def test_a_missing_driver_is_named_with_its_pip_line(upshot: Command, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('no redis', name='redis')\n")

    done = upshot("backends")

    assert done.returncode == 0
    assert 'missing: pip install "upshot[redis]"' in done.stdout


def test_config_explains_every_setting_and_masks_passwords(upshot: Command) -> None:
    environment = {"UPSHOT_RESULT_BACKEND": "redis://:hunter2@localhost/0"}
    shown = upshot("config", **environment)
    found = json.loads(upshot("-A", "jobs", "config", "--json", **environment).stdout)

    rows = {row["name"]: row for row in found}
    assert rows["result_expires"]["value"] == 86400.0
    assert rows["result_expires"]["unit"] == "seconds"
    assert rows["result_backend"]["source"] == "environment UPSHOT_RESULT_BACKEND"
    assert "86400 seconds" in shown.stdout
    assert all(name in shown.stdout for name in rows)
    assert "hunter2" not in shown.stdout + json.dumps(found)


def test_a_misspelt_setting_is_one_line(upshot: Command) -> None:
    done = upshot("config", UPSHOT_RESULT_EXPIRE="5")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "result_expires" in done.stderr


def test_a_service_that_is_away_is_exit_code_1_in_one_line(upshot: Command) -> None:
    done = upshot(
        "-A",
        "jobs",
        "result",
        "it",
        UPSHOT_RESULT_BACKEND="redis://:hunter2@127.0.0.1:1/0",
        UPSHOT_OPERATION_TIMEOUT="0.2",
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_number_of_seconds(upshot: Command, bad: str) -> None:
    done = upshot("-A", "jobs", "result", "it", "-t", bad)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_version_names_the_drivers(upshot: Command) -> None:
    found = json.loads(upshot("version", "--json").stdout)

    assert found["python"] == sys.version.split()[0]
    assert {"upshot", "sqlalchemy", "redis", "msgpack", "click", "rich"} <= found.keys()


def test_colours_are_for_terminals_that_want_them(upshot: Command) -> None:
    forced = upshot("version", FORCE_COLOR="1", NO_COLOR="", UPSHOT_NO_COLOR="")
    error = upshot("-A", "jbos", "config", FORCE_COLOR="1", NO_COLOR="1")

    assert "\x1b[1m" in forced.stdout
    assert "\x1b[31m" not in error.stderr
    assert "\x1b[1;31m" not in error.stderr


def test_a_service_without_tables_has_none_to_create(upshot: Command) -> None:
    done = upshot("backends", "ddl", "redis://:hunter2@localhost")

    assert done.returncode == 2
    assert "needs no tables" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_task_may_be_called_like_a_command(upshot: Command) -> None:
    upshot("-A", "jobs", "call", "--id", "prune", "add", "1", "2")

    assert "QUEUED" in upshot("-A", "jobs", "result", "show", "prune").stdout
    assert upshot("-A", "jobs", "result", "prune").stdout.split() == ["removed", "0"]


def test_the_tables_that_are_printed_are_the_tables_that_are_needed(
    upshot: Command, tmp_path: Path
) -> None:
    printed = upshot("backends", "ddl", f"sqlite:///{tmp_path}/made.db")
    assert not (tmp_path / "made.db").exists()
    upshot("-A", "jobs", "call", "--id", "it", "add", "1", "2")

    def layout(path: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as database:
            return database.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()

    with closing(sqlite3.connect(tmp_path / "made.db")) as database:
        database.executescript(printed.stdout)
    assert layout(tmp_path / "made.db") == layout(tmp_path / "queue.db")


def test_what_has_expired_is_removed_when_asked(upshot: Command, tmp_path: Path) -> None:
    call(upshot, "add", "1", "2")
    with closing(sqlite3.connect(tmp_path / "queue.db")) as database, database:
        database.execute("UPDATE upshot_results SET expires_at = 1")

    assert json.loads(upshot("-A", "jobs", "result", "prune", "--json").stdout) == {"removed": 1}
    assert json.loads(upshot("-A", "jobs", "result", "prune", "--json").stdout) == {"removed": 0}
