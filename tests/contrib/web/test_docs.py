"""`docs/web.md` is true: its commands run and print what it says, and its pictures are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.pages import blocks

from .serving import WebProcess

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
TEXT = (DOCS / "web.md").read_text(encoding="utf-8")
BLOCKS = blocks(TEXT)
LARGEST = 150 * 1024  # bytes of a picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text('from upshot import App\n\napp = App("tasks")\n')
    return tmp_path


def test_the_commands_serve_the_page_as_it_says(folder: Path) -> None:
    install, *commands = [line for block in BLOCKS for line in block.body.splitlines()]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert re.findall(r"\[(\w+)\]", install)[0] in extras["optional-dependencies"]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words[:4] == ["upshot", "-A", "tasks", "web"]
        web = WebProcess(folder, *words[4:])
        try:
            web.process.send_signal(2)
            printed = web.said + (web.process.stdout.read() if web.process.stdout else "")
            bare, mark, _ = web.link.partition("?token=")
            assert bool(mark) == ("--new-token" in words)
            shown = printed.replace(web.link, "http://127.0.0.1:8020/")
            assert shown == BLOCKS[0].output
            assert bare.startswith("http://127.0.0.1:")
        finally:
            web.kill()


def test_every_option_on_the_page_exists() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "upshot", "web", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    options = set(re.findall(r"(?<![\w-])(--[a-z-]+)", TEXT))

    assert options == {"--port", "--host", "--new-token", "--allow-host"}
    assert [option for option in options if option not in known] == []
    assert "127.0.0.1" in known
    assert "8020" in known


def test_the_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)

    assert len(pictures) == 3
    for name in pictures:
        assert (DOCS / name).read_bytes().startswith(b"\x89PNG"), name
        assert (DOCS / name).stat().st_size < LARGEST, name
