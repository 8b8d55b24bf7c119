"""What the real command makes of slips and of odd surroundings: one line, and no password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import AS_IN_FRONT
from upshot_conformance.servers import RedisServer, new_password

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


@pytest.fixture
def shell(upshot: Command, tmp_path: Path, environment: dict[str, str]) -> Command:
    """Runs a line of the shell in the same folder, where `$U` is the command."""

    def run(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=environment | {"U": f"{sys.executable} -m upshot -A jobs"} | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("words", [(), ("results",), ("result",), ("backends", "ddl")])
def test_a_command_without_arguments_is_shown_in_lines(
    upshot: Command, words: tuple[str, ...]
) -> None:
    done = upshot(*words)

    assert done.returncode == 2
    assert done.stderr.startswith(f"Usage: {' '.join(('upshot', *words))} [")
    assert len(done.stderr.splitlines()) > 3
    assert "\\n" not in done.stderr


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


def test_a_queue_that_looks_like_a_url_shows_no_password(upshot: Command) -> None:
    worked = upshot("-A", "jobs", "worker", "-Q", URL, "-c", "1", "--burst")
    purged = upshot("-A", "jobs", "purge", "-Q", URL, "-y")
    as_json = upshot("-A", "jobs", "purge", "-Q", URL, "-y", "--json")
    looked_for = upshot("-A", "jobs", "result", URL)

    for done in (worked, purged, as_json, looked_for):
        assert "redis://:***@h" in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


def test_a_url_in_the_place_of_the_module_says_where_urls_belong(upshot: Command) -> None:
    done = upshot("-A", URL, "worker")

    assert done.stderr.count("\n") == 1
    assert "UPSHOT_BROKER_URL" in done.stderr
    assert done.stderr.count("redis") == 1
    assert "did you mean redis" not in done.stderr


def test_what_is_no_target_is_quoted_as_it_is_and_not_suggested_again(upshot: Command) -> None:
    url = upshot("-A", "redis://localhost", "worker")
    name = upshot("-A", "shop.jobs:my-app", "worker")
    path = upshot("-A", "./shop/jobs.py:app", "worker")

    assert "cannot read -A 'redis://localhost' as MODULE" in url.stderr
    assert "cannot read -A 'shop.jobs:my-app' as MODULE" in name.stderr
    assert "did you mean" not in name.stderr
    assert "did you mean shop.jobs:app?" in path.stderr


def test_a_folder_that_has_gone_is_one_line(shell: Command) -> None:
    done = shell("mkdir gone && cd gone && rmdir ../gone && $U purge -y")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no module 'jobs'" in done.stderr
    assert "the current folder has gone" in done.stderr


def test_an_installed_module_needs_no_folder(shell: Command, tmp_path: Path) -> None:
    # An empty part would be the current folder.
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = shell("mkdir gone && cd gone && rmdir ../gone && $U purge -y --json", PYTHONPATH=paths)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["config", "config --json", "version", "--help", "backends"])
def test_a_full_disk_is_one_line(shell: Command, command: str, unbuffered: str) -> None:
    done = shell(f"$U {command} > /dev/full", PYTHONUNBUFFERED=unbuffered)

    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["config", "config --json"])
def test_a_reader_that_leaves_is_no_trouble(shell: Command, command: str) -> None:
    done = shell(f"{{ $U {command}; echo $? >&2; }} | true")

    assert done.stderr in ("0\n", "1\n")  # it may have been faster than the reader


def test_an_error_that_is_not_of_the_output_shows_where_it_is(
    upshot: Command, tmp_path: Path
) -> None:
    (tmp_path / "odd.py").write_text(
        textwrap.dedent(JOBS) + "\napp.queues = lambda: open('/no/such/file')\n"
    )

    done = upshot("-A", "odd", "purge", "-y")
    assert "FileNotFoundError" in done.stderr
    assert "Traceback" in done.stderr


def test_a_worker_without_stderr_works_without_a_banner(shell: Command) -> None:
    sent = shell("$U call --id it add 1 2")
    worked = shell("$U worker -c 1 --burst 2>&-")
    found = shell("$U result it")

    assert [sent.returncode, worked.returncode, found.returncode] == [0, 0, 0]
    assert "SUCCESS" in found.stdout


def test_ctrl_c_at_a_question_is_130(
    upshot: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    asking = subprocess.Popen(
        [*AS_IN_FRONT, sys.executable, "-m", "upshot", "-A", "jobs", "purge"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with asking:
        assert asking.stderr is not None
        while asking.stderr.read(1) != "?":
            assert asking.poll() is None
        time.sleep(0.3)  # from the question to the wait for its answer
        asking.send_signal(signal.SIGINT)
        rest = asking.stderr.read()
        assert asking.wait(10) == 130
    assert "Error" not in rest
    assert rest.endswith("\n")


def test_a_broker_that_cannot_be_is_one_line_of_a_burst(upshot: Command) -> None:
    url = "sqlite:////proc/x/y.db"

    done = upshot("-A", "jobs", "worker", "-c", "1", "--burst", UPSHOT_BROKER_URL=url)

    assert done.returncode == 1
    assert "the process ends" not in done.stderr
    assert "replacing it" not in done.stderr
    assert "the folder /proc/x cannot be made" in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("UPSHOT_RESULT_BACKEND", "nosuch://x", "no result backend serves nosuch://"),
        ("UPSHOT_RESULT_BACKEND", "mongodb://127.0.0.1:1/x?bogus=1", "bogus"),
        ("UPSHOT_ACCEPT_CONTENT", "json,bogus", "no serializer is called 'bogus'"),
    ],
)
def test_what_no_process_of_a_worker_could_open_keeps_it_from_starting(
    upshot: Command, setting: str, value: str, message: str
) -> None:
    done = upshot("-A", "jobs", "worker", "-c", "1", "--burst", **{setting: value})

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_result_that_a_frozen_server_keeps_is_given_up_in_time(upshot: Command) -> None:
    with RedisServer(password=new_password()) as server:
        server.pause()
        began = time.monotonic()
        done = upshot(
            *("-A", "jobs", "result", "it", "-t", "1"),
            UPSHOT_BROKER_URL=server.url,
            UPSHOT_OPERATION_TIMEOUT="20",
        )
        took = time.monotonic() - began
        server.resume()

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert took < 10  # the interpreter's start included; another whole operation would be 21
