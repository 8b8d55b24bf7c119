"""Every page of `docs/` does what it says: its files are written, its commands are run, in order.

A page has a folder of its own, in which its workers run until its end.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.pages import Block, as_pattern, blocks

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {
    "celery-backends.md",
    "celery.md",
    "deployment.md",
    "django.md",
    "observing.md",
    "operating.md",
    "streaming.md",
    "web.md",
    "writing-a-backend.md",
}
"""Pages whose blocks have tests of their own, which start what these pages are about."""

PAGES = {
    path.name: blocks(path.read_text(encoding="utf-8"))
    for path in sorted(DOCS.rglob("*.md"))
    if path.name not in ELSEWHERE
}
WITH_BLOCKS = [name for name, found in PAGES.items() if found]
SECONDS = 60
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


class Reader:
    """Somebody who does what a page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []
        kept = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
        self._environment: Mapping[str, str] = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "error",
            "TMPDIR": str(folder),
        }

    def follow(self, block: Block) -> str | None:
        """Do what one block says; return what that printed, None if it has only been written."""
        if block.language == "sh":
            printed = [self._command(line) for line in block.body.splitlines()]
            return "".join(text for text in printed if text)
        path = self._folder / block.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")
        return None if block.output is None else self._run(f"python {shlex.quote(block.name)}")

    def _command(self, line: str) -> str | None:
        words = shlex.split(line)
        if words[:2] == ["pip", "install"]:  # it is installed
            extras = re.search(r"\[(.+)\]", words[-1])
            assert {*(extras[1].split(",") if extras else [])} <= {*EXTRAS}, line
            return None
        if "worker" in words and "--burst" not in words:
            self._start(words)
            return None
        return self._run(line)

    def _start(self, words: list[str]) -> None:
        with (self._folder / "worker.log").open("ab") as log:
            self._workers.append(
                subprocess.Popen(
                    words, cwd=self._folder, env=self._environment, stdout=log, stderr=log
                )
            )

    def _run(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        log = self._folder / "worker.log"
        said = log.read_text() if log.exists() else ""
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{said}"
        return done.stdout

    def stop(self) -> None:
        """Stop the workers, as their user would; each ends by itself."""
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        try:
            assert [worker.wait(SECONDS) for worker in self._workers] == [0] * len(self._workers)
        finally:
            for worker in self._workers:
                worker.kill()
                worker.wait()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    yield someone
    someone.stop()


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_a_page_does_what_it_says(page: str, reader: Reader) -> None:
    for block in PAGES[page]:
        printed = reader.follow(block)
        if block.output is not None:
            assert printed is not None
            assert re.fullmatch(as_pattern(block.output), printed), (
                f"{block.body}\nprinted\n{printed}"
            )


def test_every_block_is_a_named_file_or_commands() -> None:
    found = [(page, block) for page in PAGES for block in PAGES[page]]

    assert {block.language for _, block in found} <= {"python", "toml", "ini", "sh"}
    assert [page for page, block in found if block.language != "sh" and not block.name] == []


def test_the_pages_that_are_tested_elsewhere_exist() -> None:
    assert {path.name for path in DOCS.rglob("*.md")} >= ELSEWHERE


def test_every_setting_is_explained_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.settings_page", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [path.relative_to(DOCS) for path in sorted(DOCS.rglob("*.md"))])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)

    assert [link for link in links if not (DOCS / page.parent / link).exists()] == []
