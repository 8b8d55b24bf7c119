"""`upshot worker --log-format json`: each line is one JSON object, whatever tasks do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from upshot import App
from upshot.errors import DriverMissingError
from upshot.worker import logs

StartWorker = Callable[..., Any]

TASKS = r"""
import asyncio
import logging
import warnings

log = logging.getLogger("shop")


class Rude:
    def __repr__(self):
        raise ValueError("no")


@app.task
def talk():
    log.info("one\ntwo\x1b[2J\u2028\udc80", extra={"basket": {"tea": 2}, "sum": float("nan")})
    log.info("at redis://shop:hunter2secret@cache/0", extra={"url": "amqp://a:hunter2secret@b//"})
    circle = []
    circle.append(circle)
    log.info("odd", extra={"circle": circle, "pairs": {(1, 2): 3}, "rude": Rude()})
    log.info({"message": "a mapping"})
    warnings.warn("careful")


@app.task
def mumble():
    url = "redis://shop:hunter2secret@cache/0"
    log.info("deep", extra={"urls": {url: [url, (url,)]}, "error": ValueError(url)})
    log.info("%d of %s", url)
    log.info("%s", Rude())
    log.info("long", extra={"number": 10**5000, "rate": 0.1})
    log.info("whose?", extra={"level": "DEBUG", "logger": "else", "state": url})
    log.info({"level": "DEBUG", "process": 1, "message": "mine"})


@app.task
async def aloud():
    await asyncio.sleep(0)
    log.warning("in a coroutine")
    await asyncio.to_thread(log.warning, "in a thread")


@app.task(max_retries=1, retry_backoff=0, autoretry_for=(KeyError,))
def broken():
    try:
        raise KeyError("redis://shop:hunter2secret@cache/0")
    except KeyError:
        log.exception("it\nfailed")
        raise
"""


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    jobs = project / "jobs.py"
    jobs.write_text(jobs.read_text() + TASKS)
    with App() as app:
        yield app


def lines_of(worker: Any) -> list[dict[str, Any]]:
    """Return what a worker has logged; each line must be strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    text = worker.output()
    assert text.isascii()
    assert "hunter2secret" not in text
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_every_line_is_an_object_with_a_moment_and_a_level(
    app: App, start_worker: StartWorker
) -> None:
    worker = start_worker("-c", "1", "--log-format", "json")
    app.send_task("jobs.add", [1, 2]).get(timeout=30)
    assert worker.stop() == 0

    lines = lines_of(worker)
    assert lines[0]["message"].startswith("upshot ")  # the banner, in one line
    for line in lines:
        assert list(line)[:5] == ["time", "level", "logger", "message", "process"]
        moment = datetime.fromisoformat(line["time"])
        assert moment.tzinfo == UTC
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 600
    assert [line["level"] for line in lines if line["logger"] == "upshot.task"] == ["INFO"]


def test_the_lines_of_a_task_say_which_one_it_is(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1", "--name", "w", "--log-format", "json")
    handle = app.send_task("jobs.aloud")
    handle.get(timeout=30)
    assert worker.stop() == 0

    lines = lines_of(worker)
    about = [line for line in lines if line.get("task_id") == handle.id]
    assert [line["message"] for line in about[:2]] == ["in a coroutine", "in a thread"]
    assert "SUCCESS" in about[2]["message"]
    assert about[2]["state"] == "SUCCESS"
    for line in about:
        found = (line["task"], line["queue"], line["attempt"], line["worker"])
        assert found == ("jobs.aloud", "default", 1, "w/1")
    assert [line for line in lines if "task" in line and line not in about] == []


def test_whatever_a_task_logs_is_one_line(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1", "--log-format", "json")
    app.send_task("jobs.talk").get(timeout=30)
    assert worker.stop() == 0

    lines = [line for line in lines_of(worker) if line.get("task") == "jobs.talk"]
    shop = [line for line in lines if line["logger"] == "shop"]
    assert shop[0]["message"] == "one\ntwo\x1b[2J\u2028\udc80"
    assert shop[0]["sum"] == "nan"
    assert shop[1]["message"] == "at redis://shop:***@cache/0"
    assert shop[1]["url"] == "amqp://a:***@b//"
    assert shop[2]["circle"] == "[[...]]"
    assert shop[2]["pairs"] == "{(1, 2): 3}"
    assert "not" in shop[2]["rude"]  # to be shown, or encoded
    assert shop[3]["message"] == "a mapping"
    assert [line["level"] for line in lines if line["logger"] == "py.warnings"] == ["WARNING"]


def test_what_cannot_be_logged_as_it_is_is_one_line_too(
    app: App, start_worker: StartWorker
) -> None:
    worker = start_worker("-c", "1", "--log-format", "json")
    app.send_task("jobs.mumble").get(timeout=30)
    assert worker.stop() == 0

    lines = [line for line in lines_of(worker) if line["logger"] == "shop"]
    masked = "redis://shop:***@cache/0"
    assert lines[0]["urls"] == {masked: [masked, [masked]]}
    assert lines[0]["error"] == f"ValueError: {masked}"
    assert lines[1]["message"] == f"%d of %s: TypeError with ('{masked}',)"
    assert lines[2]["message"].startswith("%s: ValueError with <")
    assert (lines[3]["number"], lines[3]["rate"]) == (
        "<builtins.int object that cannot be shown>",
        0.1,
    )
    assert [line["level"] for line in lines] == ["INFO"] * 6
    assert len({line["process"] for line in lines}) == 1
    assert lines[5]["message"] == "mine"


def test_an_exception_is_text_in_the_same_line(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1", "--log-format", "json")
    handle = app.send_task("jobs.broken")
    handle.exception(timeout=30)
    assert worker.stop() == 0

    failed = [line for line in lines_of(worker) if line["message"] == "it\nfailed"]
    assert [line["attempt"] for line in failed] == [1, 2]
    for line in failed:
        assert line["level"] == "ERROR"
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert "redis://shop:***@cache/0" in line["exception"]


def test_a_setting_chooses_it_and_the_option_wins(
    app: App, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSHOT_WORKER_LOG_FORMAT", "json")
    worker = start_worker("-c", "1", "--burst")
    assert worker.process.wait(30) == 0
    assert lines_of(worker)

    worker = start_worker("-c", "1", "--burst", "--log-format", "text")
    assert worker.process.wait(30) == 0
    assert worker.output().startswith("upshot ")


def test_text_tells_no_password_either(app: App, start_worker: StartWorker) -> None:
    worker = start_worker("-c", "1", "--log-format", "text")
    app.send_task("jobs.talk").get(timeout=30)
    app.send_task("jobs.broken").exception(timeout=30)
    assert worker.stop() == 0

    assert "at redis://shop:***@cache/0" in worker.output()
    assert "KeyError: 'redis://shop:***@cache/0'" in worker.output()
    assert "hunter2secret" not in worker.output()


def test_a_format_that_there_is_not_is_refused(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upshot", "-A", "jobs", "worker"],
        cwd=project,
        env=os.environ | {"UPSHOT_WORKER_LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert "worker_log_format is text or json; not 'xml'" in done.stderr


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upshot.worker.json_lines", None)

    with pytest.raises(DriverMissingError, match=r'pip install "upshot\[jsonlogs\]"'):
        logs.begin_logging("INFO", "json")
