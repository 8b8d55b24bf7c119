"""`docs/private-results.md` is true: its programs print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "private-results.md"
PROGRAM: Final = re.compile(
    r"^```python\n(?P<body># (?P<name>\w+\.py)\n.*?)^```\n\n```output\n(?P<output>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TEXT: Final = PAGE.read_text(encoding="utf-8")
PROGRAMS: Final = {each["name"]: each for each in PROGRAM.finditer(TEXT)}


def test_every_program_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == TEXT.count("```python") == 3


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(PROGRAMS[name]["body"], encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSHOT_")}

    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=tmp_path,
        env=kept | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == PROGRAMS[name]["output"]
