"""`docs/observing.md` is true: its files and commands are run in their order."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.contrib.opentelemetry.collector import collecting
from tests.pages import Block, as_pattern, blocks, help_of

ROOT: Final = Path(__file__).resolve().parents[2]
TEXT: Final = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
PORT: Final = "9464"
SECONDS: Final = 60
SERVING: Final = {"worker", "metrics"}
_ASSIGNMENT: Final = re.compile(r"(\w+)=(\S*)")


class Reader:
    """Somebody who does what the page says, in a folder.

    Args:
        folder: where.
        port: a free one, in the place of the page's.
        environment: what commands have besides this process's.
    """

    def __init__(self, folder: Path, port: int, environment: dict[str, str]) -> None:
        clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = clean | {"PATH": path, "NO_COLOR": "1"} | environment
        self._folder = folder
        self._port = str(port)
        self._serving: list[subprocess.Popen[bytes]] = []

    def follow(self, block: Block) -> None:
        """Do what one block says, and compare what that prints."""
        if block.language != "sh":
            (self._folder / block.name).write_text(block.body, encoding="utf-8")
        deadline = time.monotonic() + SECONDS
        lines = block.body.replace(PORT, self._port).splitlines()
        if block.language != "sh":
            lines = [f"python {block.name}"] if block.output else []
        printed = [self._do(line) for line in lines]
        while block.output and not re.fullmatch(as_pattern(block.output), "".join(printed)):
            # A count comes just after the result that it counts.
            again = lines[-1].startswith("curl") and time.monotonic() < deadline
            assert again, f"{block.body}\nprinted\n{''.join(printed)}"
            time.sleep(0.05)
            printed[-1] = self._do(lines[-1])

    def _do(self, line: str) -> str:
        words, environment = shlex.split(line), dict(self._environment)
        while found := _ASSIGNMENT.fullmatch(words[0]):
            environment[found[1]] = found[2]
            del words[0]
        if words[:2] == ["pip", "install"]:  # it is installed
            return ""
        if words[0] == "curl":
            return self._fetch(words[2], words[-1])
        if SERVING & {*words} and "--burst" not in words:
            with (self._folder / "serving.log").open("ab") as log:
                started = subprocess.Popen(
                    words, cwd=self._folder, env=environment, stdout=log, stderr=log
                )
            self._serving.append(started)
            return ""
        done = subprocess.run(
            words,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _fetch(self, url: str, pattern: str) -> str:
        """Do what `curl -s URL | grep -E PATTERN` does, once somebody listens there."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                    lines = answer.read().decode().splitlines(keepends=True)
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "serving.log").read_text()
                time.sleep(0.05)
            else:
                return "".join(line for line in lines if re.search(pattern, line))

    def stop(self) -> None:
        """Stop what serves, as its user would."""
        for each in self._serving:
            each.send_signal(signal.SIGTERM)
        try:
            assert [each.wait(SECONDS) for each in self._serving] == [0] * len(self._serving)
        finally:
            for each in self._serving:
                each.kill()
                each.wait()
            self._serving.clear()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def parts() -> list[str]:
    return re.split(r"^## ", TEXT, flags=re.MULTILINE)


def test_the_page_does_what_it_says(tmp_path: Path, free_port: int) -> None:
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        endpoint = collector.url.removesuffix("/v1/traces")
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        reader = Reader(tmp_path, free_port, environment)
        stack.callback(reader.stop)
        traces, metrics, logs = parts()[1:4]
        for part in (traces, metrics, logs):
            for block in blocks(part):
                reader.follow(block)
            if part is not logs:
                reader.stop()
        spans = [
            span for kind in ("send", "process", "get") for span in collector.wait_for(1, kind)
        ]

    told = re.findall(r"^\| `(\w+ [\w.]+)` \| (\w+) \|", traces, re.MULTILINE)
    assert [(span.name, Span.SpanKind.Name(span.kind)) for span in spans] == [
        (name, f"SPAN_KIND_{kind.upper()}") for name, kind in told
    ]
    assert len({span.trace_id for span in spans[:2]}) == 1


def test_every_metric_and_option_on_the_page_exists() -> None:
    metrics = parts()[2]
    sources = (ROOT / "contrib" / "upshot_contrib" / "prometheus").glob("*.py")
    known = {name for each in sources for name in re.findall(r'"(upshot_\w+)"', each.read_text())}
    assert set(re.findall(r"^\| `(upshot_\w+)`", metrics, re.MULTILINE)) == known

    said = help_of("metrics", "worker", "call")
    options = set(re.findall(r"(?<=[ `])--[a-z][a-z-]*", TEXT))
    assert {option for option in options if option not in said} == set()
