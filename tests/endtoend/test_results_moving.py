"""`upshot results`: waiting for results, watching, removing and moving them, on SQLite."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import AS_IN_FRONT
from upshot import App, clock
from upshot_conformance.records import success

from .places import COMMAND, Command, Place, json_of

# -- waiting ----------------------------------------------------------------------------------


def test_waiting_ends_with_the_last_of_them(here: Command, place: Place) -> None:
    place.fill()

    good = here("wait", "good", "old", *place.words)
    bad = here("wait", "good", "bad", "gone", *place.words, "--json")
    late = here("wait", "good", "runs", "nobody", *place.words, "-t", "0.3")

    assert (good.returncode, set(good.stdout.split())) == (0, {"SUCCESS", "good", "old"})
    states = {each["id"]: each["state"] for each in map(json.loads, bad.stdout.splitlines())}
    assert (bad.returncode, states) == (
        1,
        {"good": "SUCCESS", "bad": "FAILURE", "gone": "REVOKED"},
    )
    assert late.returncode == 124
    assert "2 did not end within 0.30 s: runs, nobody" in late.stderr


def test_watching_prints_each_change_once(results: Command, place: Place, tmp_path: Path) -> None:
    place.fill()
    watching = subprocess.Popen(
        [*COMMAND, "watch", "runs", *place.words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        place.client.store(success("runs", 1)._replace(name="shop.order"))
        rest = watching.stdout.read()

    assert (first.split(), rest.split()) == (["STARTED", "runs", "75%", "3/4"], ["SUCCESS", "runs"])
    assert watching.returncode == 0


def test_ctrl_c_ends_a_watch_and_a_wait_in_silence(place: Place, tmp_path: Path) -> None:
    place.fill()
    for command in ("watch", "wait"):
        asking = subprocess.Popen(
            [*AS_IN_FRONT, *COMMAND, command, "good", "runs", *place.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        with asking:
            assert asking.stdout is not None
            assert asking.stderr is not None
            assert asking.stdout.readline().split() == ["SUCCESS", "good"]
            asking.send_signal(signal.SIGINT)
            assert asking.wait(60) == 130
            assert asking.stderr.read().strip() == ""


def on_terminal(place: Place, *arguments: str, end_at: bytes | None = None, **more: str) -> str:
    """What the command writes to a terminal of 40 columns; SIGTERM ends it at a text."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*COMMAND, *arguments, *place.words],
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "40"} | more,
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is its end
            while part := screen.read(65_536):
                shown += part
                if end_at is not None and end_at in shown:
                    end_at = None
                    process.terminate()
        process.wait(60)
    return shown.decode()


def test_a_terminal_gets_colours_and_bars(place: Place) -> None:
    place.fill()
    hue = re.compile(r"\x1b\[[0-9;]*[39][0-7]m")

    watched = on_terminal(place, "watch", "good", "runs", "-t", "0.1s")
    shown, plain = (on_terminal(place, "show", "bad", NO_COLOR=value) for value in ("", "1"))

    assert "━" in watched
    assert "75%" in watched
    assert "1 of 2 ended" in watched
    assert hue.search(watched)
    assert hue.search(shown)
    assert not hue.search(plain)
    assert "Traceback" in plain


def test_a_terminal_has_its_cursor_back_after_sigterm(place: Place) -> None:
    place.fill()

    watched = on_terminal(place, "watch", "runs", end_at=b"75%")

    assert watched.rfind("\x1b[?25h") > watched.rfind("\x1b[?25l") >= 0  # hidden, shown


# -- removing and moving ----------------------------------------------------------------------


def test_forgetting_says_what_there_was(here: Command, place: Place) -> None:
    place.fill()

    done = here("forget", "bad", "nobody", "runs", "gone", *place.words)

    assert done.returncode == 0
    assert done.stdout.split() == ["forgotten", "bad", "forgotten", "runs", "forgotten", "gone"]
    assert "no record of nobody" in done.stderr
    assert "1 had not ended" in done.stderr
    assert "1 had been revoked" in done.stderr
    assert place.ids() == {"good", "old"}


def test_a_dry_run_removes_nothing(here: Command, place: Place) -> None:
    place.fill()

    dry = here("prune", *place.words, "--state", "SUCCESS,REVOKED", "--dry-run")

    assert dry.stdout.split() == ["would", "remove", "3", "of", "5"]
    assert len(place.ids()) == 5
    assert json_of(here("prune", *place.words, "--state", "revoked", "--json")) == {
        "removed": 1,
        "dry_run": False,
        "looked_at": 5,
        "changed": 0,
        "unreadable": 0,
    }


def test_a_wrong_line_is_named_and_can_be_passed_over(
    here: Command, place: Place, tmp_path: Path
) -> None:
    place.fill()
    lines = here("export", *place.words).stdout.splitlines()
    place.client.forget(place.ids())
    (tmp_path / "lines").write_text("\n".join([lines[0], lines[1][:-5], *lines[2:]]))

    stopped = here("import", *place.words, "lines")
    assert stopped.returncode == 1
    assert "line 2: it is no JSON" in stopped.stderr
    assert len(place.ids()) == 1
    passed = here("import", *place.words, "--keep-going", "--json", "lines")

    assert (passed.returncode, json_of(passed)["refused"]) == (1, 1)
    assert "line 2" in passed.stderr
    assert len(place.ids()) == 4


def test_a_line_that_is_too_long_for_a_record_is_a_wrong_line(
    here: Command, place: Place, tmp_path: Path
) -> None:
    place.fill()
    lines = here("export", *place.words).stdout.splitlines()
    place.client.forget(place.ids())
    (tmp_path / "lines").write_text("\n".join([lines[0], "x" * 200_000, *lines[1:]]))
    options = (*place.words, "lines")

    stopped = here("import", *options, UPSHOT_RESULT_MAX_BYTES="1024")
    assert stopped.returncode == 1
    assert "line 2: it is longer than any record may be" in stopped.stderr
    assert len(place.ids()) == 1
    passed = here("import", "--keep-going", *options, UPSHOT_RESULT_MAX_BYTES="1024")

    assert passed.returncode == 1
    assert "line 2: it is longer than any record may be" in passed.stderr
    assert len(place.ids()) == 5


def test_expiry_counts_from_the_import_on(here: Command, place: Place, tmp_path: Path) -> None:
    place.client.store(success("it", 1))
    (tmp_path / "lines").write_text(here("export", *place.words).stdout)
    place.client.forget(["it"])

    assert here("import", *place.words, "--expires", "1s", "lines").returncode == 0

    ends = clock.Deadline(10)
    while place.client.load("it") is not None:
        assert not ends.expired
    assert here("import", *place.words, "--expires", "none", "lines").returncode == 0
    assert place.ids() == {"it"}


def test_ten_thousand_records_go_through_a_pipe(results: Command, place: Place) -> None:
    """And a reader that leaves early is no trouble."""
    for start in range(0, 10_000, 1000):
        place.client.store_many(success(f"id-{n}", n) for n in range(start, start + 1000))
    line = (
        f"{sys.executable} -m upshot results export {{0}} | "
        f"{sys.executable} -m upshot results import --json {{1}}"
    )
    other = place.url.replace("results.db", "other.db")
    words = " ".join(place.words)

    piped = subprocess.run(
        line.format(words, words.replace(place.url, other)),
        shell=True,
        capture_output=True,
        text=True,
    )
    cut = subprocess.run(
        f"{sys.executable} -m upshot results export {words} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
    )

    assert json.loads(piped.stdout)["stored"] == 10_000
    assert "exported 10000 records" in piped.stderr
    assert cut.stdout.count("\n") == 1
    assert cut.stderr == ""


def test_a_migration_reports_what_it_did_and_is_done_again(
    here: Command, place: Place, tmp_path: Path
) -> None:
    place.fill()
    words = (place.url, f"sqlite:///{tmp_path}/new.db", "--namespace", place.namespace)

    first, again = here("migrate", *words), here("migrate", *words, "--json")

    assert first.returncode == 0
    assert "1 of the tasks had not ended" in first.stderr
    assert json_of(again) | {"stored": 0, "present": 5, "verified": 5, "complete": True} == json_of(
        again
    )


def test_a_migration_that_misses_something_is_exit_code_1(
    here: Command, place: Place, tmp_path: Path
) -> None:
    place.client.store(success("it", "old"))
    target = f"sqlite:///{tmp_path}/new.db"
    with App(backend=target, namespace=place.namespace) as app:
        app.results.store(success("it", "new"))

    done = here("migrate", place.url, target, "--namespace", place.namespace)

    assert done.returncode == 1
    assert "it: another one is there, which is SUCCESS" in done.stderr


def test_ids_go_nowhere_if_stdout_is_closed(place: Place, tmp_path: Path) -> None:
    place.fill()
    command = shlex.join([*COMMAND, "list", "--ids", *place.words])

    done = subprocess.run(
        ["bash", "-c", f"{command} >&-"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
