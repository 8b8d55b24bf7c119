"""`docs/results.md` is true: its commands run, and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def shell(command: str, folder: Path) -> str:
    """Run commands as the page's reader would, and return what they print."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-e", "-c", command],
        cwd=folder,
        env=kept | {"PATH": f"{bin_folder}{os.pathsep}{kept['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.timeout(300)
def test_every_block_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    printed, languages = "", set[str]()
    for block in FENCE.finditer(TEXT):
        language, body = block["language"], block["body"]
        languages.add(language)
        if language == "sh":
            printed = shell(body, tmp_path)
        elif language == "output":
            assert printed == body
        else:
            name = body.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(body, encoding="utf-8")
            printed = shell(f"python {name}", tmp_path)

    assert languages == {"sh", "output", "python"}
