"""What `docs/django.md` says of Django's own tasks is true: its steps print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "django.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("\n## Django's own tasks\n")[2].partition("\n## ")[0]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match["language"], match["body"]) for match in FENCE.finditer(SECTION)]


@pytest.mark.timeout(300)
def test_the_section_prints_what_it_says(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if "DJANGO" not in name},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def start(command: str, output: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=None if output == subprocess.PIPE else subprocess.DEVNULL,
            text=True,
        )

    def run(command: str) -> str:
        process = start(command, subprocess.PIPE)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, command
        return printed

    run("django-admin startproject shop .")
    run("python manage.py startapp orders")
    commands: list[str] = []
    for language, body in BLOCKS:
        if language == "python":
            name, _, text = body.removeprefix("# ").partition("\n")
            with (tmp_path / name).open("a") as file:
                file.write(text)
        elif language == "sh":
            commands += body.splitlines()

    worker = start(commands[0], subprocess.DEVNULL)
    try:
        printed = "".join(map(run, commands[1:]))
    finally:
        worker.terminate()
        worker.wait(30)

    assert commands[0].endswith(" upshot_worker")
    assert printed == next(body for language, body in BLOCKS if language == "output")
