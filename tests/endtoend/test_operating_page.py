"""`docs/operating.md` is true: its commands are run in their order, and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.pages import FENCE, as_pattern, help_of
from upshot_conformance.servers import RedisServer

ROOT: Final = Path(__file__).resolve().parents[2]
TEXT: Final = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
CACHE: Final = "redis://cache"


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    printed, compared = "", 0
    arguments = ["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]
    with RedisServer(arguments=arguments) as cache:
        address = f"redis://127.0.0.1:{cache.port}"
        for found in FENCE.finditer(TEXT):
            body = found["body"]
            match found["language"]:
                case "python":
                    (tmp_path / body.partition("\n")[0].removeprefix("# ")).write_text(body)
                case "sh":
                    printed = ""
                    for line in body.replace(CACHE, address).splitlines():
                        done = subprocess.run(
                            [sys.executable, "-m", *line.split()],
                            cwd=tmp_path,
                            env=clean | {"COLUMNS": "200"},
                            capture_output=True,
                            text=True,
                            timeout=60,
                        )
                        assert done.returncode == 0, done.stdout + done.stderr
                        printed += done.stdout.replace(address, CACHE)
                case _:
                    assert re.fullmatch(as_pattern(body), printed), printed
                    compared += 1

    assert compared == 4


def test_every_option_on_the_page_exists() -> None:
    known = help_of("doctor", "status", "worker")
    options = set(re.findall(r"`[^`\n]*?(--[a-z-]+)", TEXT))

    assert options >= {"--strict", "--json", "--watch", "--records"}
    assert {option for option in options if option not in known} == set()
