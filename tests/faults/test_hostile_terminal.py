"""What tasks, services and arguments say on a terminal and in a log: text, and nothing but text."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from upshot import App, clock
from upshot.cli import main
from upshot.record import Payload, Record, printable
from upshot.serializers import JsonSerializer
from upshot.states import State
from upshot.worker import WorkerOptions, run
from upshot_conformance.records import failure, success
from upshot_conformance.suite.forge import inject

from .conftest import Sized
from .hostility import FORBIDDEN_NAMES, ODD_NAMES, TERMINAL_TEXTS, VALUE_BOMBS, flaws_of
from .scoreboard import Score

JSON = JsonSerializer()
SECONDS = 20.0  # what no command may take: each takes about 20 ms, and the machine may be busy
CODES = (0, 1, 2, 124)  # those that the command's help names
TEXTS = [text for text in TERMINAL_TEXTS if text.encode(errors="ignore").decode() == text]

Command = Callable[..., tuple[object, str]]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with an app, in the working directory."""
    name = f"hostile_{uuid.uuid4().hex[:8]}"
    source = f"""
        from upshot import App

        app = App({name!r}, broker_url="sqlite:///{tmp_path}/tasks.db")
        other = 5

        @app.task
        def echo(value):
            return value
    """
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("COLUMNS", raising=False)
    return name


@pytest.fixture
def app(module: str, tmp_path: Path) -> Iterator[App]:
    """The same services, to prepare them."""
    with App("prepare", broker_url=f"sqlite:///{tmp_path}/tasks.db") as app:
        yield app


@pytest.fixture
def upshot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process; returns its exit code and all that it wrote."""

    def run_it(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["upshot", *arguments])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run_it


def count(score: Score, what: str, upshot: Command, *arguments: str) -> str:
    """Run a command and count it as right if it ended in time, orderly, and wrote plain text."""
    score.submitted += 1
    began = clock.monotonic()
    try:
        code, output = upshot(*arguments)
    except BaseException as exc:
        score.surprise(f"{what}: {type(exc).__name__}: {exc!s:.200}")
        return ""
    score.executed += 1
    score.hung += clock.monotonic() - began > SECONDS
    flaws = [*flaws_of(output)]
    if code not in CODES:
        flaws.append(f"it ended with {code}")
    if flaws:
        score.surprise(f"{what}: {flaws}: {output!r:.200}")
    else:
        score.recorded += 1
    return output


def records(text: str) -> Iterator[Record]:
    """Yield records with a text in each place where a record holds one."""
    good = success("x", None)
    # A state is only stored if no reader takes it for an end.
    yield good._replace(name=text, queue=text, worker=text, token=text)
    yield good._replace(state=text or "X", outcome=None)
    yield good._replace(outcome=Payload("json", JSON.dumps([text, {text: (text, b"\x1b[31m")}])))
    yield good._replace(info=Payload("json", JSON.dumps({text: text})))
    yield good._replace(outcome=Payload(text, b"1"))
    yield failure("x", ValueError(text))._replace(name=text)
    exc = type("Error", (Exception,), {"__module__": text, "__qualname__": text})(text, {text: 1})
    exc.add_note(text)
    yield failure("x", exc)


@pytest.mark.experiment(11)
def test_no_record_drives_the_terminal(
    app: App, module: str, upshot: Command, score: Score, dice: Random, sized: Sized
) -> None:
    cases = [
        (text, record._replace(task_id=f"{number}-{place}"), options)
        for number, text in enumerate(TEXTS)
        for place, record in enumerate(records(text))
        for options in ([], ["--json"])
    ]
    app.results.store_many([record for _, record, _ in cases])
    for text, record, options in dice.sample(cases, sized(200, 40)):
        what = f"{text!r} in {record.task_id}"
        count(score, what, upshot, "-A", module, "result", record.task_id, *options)
    score.judge()


@pytest.mark.experiment(11)
def test_no_value_is_too_much_for_the_command(
    app: App, module: str, upshot: Command, score: Score
) -> None:
    values: dict[str, object] = {
        "a long integer": 10**5000, "one in a tuple": (10**5000,), "one for a key": {10**5000: 1},
        "half a surrogate pair": "\ud800", "one for a key, too": {"\ud800": 1}, "infinite": 1e999,
        "deep": deep(190), "wide": list(range(10**5)), "long": "x" * 10**6, "lines": "a\n" * 10**4,
    }  # fmt: skip
    for what, value in values.items():
        app.results.store(success(what, value))
        for options in ([], ["--json"]):
            count(score, what, upshot, "-A", module, "result", what, *options)
    for what, (kind, data) in VALUE_BOMBS.items():
        for state in (State.SUCCESS, State.FAILURE):
            task_id = f"{what} as {state}"
            app.results.store(Record(task_id=task_id, state=state, outcome=Payload(kind, data)))
            count(score, what, upshot, "-A", module, "result", task_id)
    inject(app.results, "no record", b"\x1b[31m")
    count(score, "no record", upshot, "-A", module, "result", "no record")
    score.judge()


def deep(levels: int) -> object:
    """Return lists in lists."""
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.experiment(11)
def test_arguments_of_the_command_are_data(
    module: str, upshot: Command, score: Score, tmp_path: Path, dice: Random, sized: Sized
) -> None:
    texts = [text for text in [*ODD_NAMES, *TERMINAL_TEXTS, *FORBIDDEN_NAMES] if "\0" not in text]
    cases = [arguments for text in texts for arguments in hostile_arguments(module, text)]
    for arguments in dice.sample(cases, sized(300, 60)):
        count(score, f"upshot {arguments}"[:200], upshot, *arguments)
    for target in ("os:system", "os.path:join", "builtins:exec", f"./{module}.py", module + " ",
                   "http://x/y.py", "/etc/passwd", f"{module}:other", "..:x", "this.is.no:module",
                   f"{module}:__builtins__", f"{module}:app.close", "sys:exit()"):  # fmt: skip
        output = count(score, target, upshot, "-A", target, "result", "x")
        assert "Error: " in output, output
    assert not (tmp_path / "x").exists(), "a shell has run"
    score.judge()


def hostile_arguments(module: str, text: str) -> Iterator[list[str]]:
    """Yield command lines with a text in each place where somebody else's may stand."""
    yield ["-A", module, "result", "--", text]
    yield ["-A", module, "call", "echo", "--id", text, "--", text]
    yield ["-A", module, "call", "--", text, text]
    yield ["-A", module, "call", "echo", "--kwargs", text]
    yield ["-A", module, "call", "echo", f"--queue={text}"]
    yield ["-A", module, "result", "x", "--timeout", text]
    yield ["-A", module, "purge", "-y", f"--queues={text}"]
    yield ["-A", module, "status", f"--queues={text}"]
    yield ["doctor", "--", text]
    yield ["-A", text, "result", "x"]
    yield ["-A", f"{module}:{text}", "result", "x"]
    yield ["backends", "ddl", "--", text]
    yield ["-A", module, "result", "x", "y" + text]
    yield [f"--{text}"]
    if not text.startswith("-"):
        yield [text]


@pytest.mark.experiment(11)
def test_the_environment_is_data(
    module: str,
    upshot: Command,
    score: Score,
    monkeypatch: pytest.MonkeyPatch,
    dice: Random,
    sized: Sized,
) -> None:
    names = ["UPSHOT_APP", "UPSHOT_LOG_LEVEL", "UPSHOT_RESULT_EXPIRES", "UPSHOT_RESULT_BACKEND",
             "UPSHOT_NAMESPACE", "UPSHOT_ACCEPT_CONTENT", "UPSHOT_TASK_SERIALIZER",
             "UPSHOT_WORKER_LEASE", "UPSHOT_NO_SUCH", "UPSHOT_TASK_DEFAULT_QUEUE"]  # fmt: skip
    texts = [text for text in [*TERMINAL_TEXTS, *ODD_NAMES, "x" * 10**5, "9" * 10**5, "1e999"]
             if "\0" not in text and "\ud800" not in text]  # fmt: skip
    cases = [(name, text) for name in names for text in texts]
    for name, text in dice.sample(cases, sized(200, 40)):
        with monkeypatch.context() as environment:
            environment.setenv(name, text)
            count(score, f"{name}={text!r:.100}", upshot, "config")
    score.judge()


@pytest.mark.experiment(11)
def test_nothing_forges_a_line_of_a_workers_log(
    score: Score, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    with App("memory", broker_url=f"memory://{uuid.uuid4().hex}") as app:
        with pytest.raises(ValueError, match="lives inside one process"):
            run(app, options_of_a_worker())  # it sets up its log, and then sees that it cannot run
        capsys.readouterr()
        for text in TERMINAL_TEXTS:
            score.submitted += 1
            try:
                raise ValueError(text)
            except ValueError:
                logging.getLogger("any").exception("a task said %s", text)
            score.executed += 1
            output = capsys.readouterr().err
            ours = [flaw for flaw in flaws_of(output) if "traceback of ours" not in flaw]
            if ours or printable(text.split("\n")[0]) not in output:
                score.surprise(f"{text!r}: {ours}: {output!r}")
            else:
                score.recorded += 1
    score.judge()


def options_of_a_worker() -> WorkerOptions:
    """Return what `upshot worker` takes by default."""
    return WorkerOptions(target="x")


def test_letters_that_an_encoding_lacks_are_escaped(module: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(
        [sys.executable, "-m", "upshot", "-A", module, "result", "é"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.split()) == (0, ["id", "\\xe9", "state", "PENDING"])
