"""`docs/deployment.md` is true: its commands are run in their order, under a real systemd."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.lodging import ROOT
from tests.deploy.systemd import Systemd
from tests.pages import FENCE, as_pattern
from upshot import App
from upshot.cli import exits
from upshot.settings import SETTINGS
from upshot_conformance.servers import RedisServer, new_password

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "deploy"
URL = "redis://:secret@127.0.0.1:6379/0"
FOLDER = "/srv/deploy"


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    tasks = (ROOT / "examples" / "tasks.py").read_text()
    printed, compared = "", 0
    with RedisServer(password=new_password()) as redis, Systemd(tmp_path) as systemd:
        systemd.install("shop", tasks)
        for path in (EXAMPLES / "systemd").glob("*.*"):
            if path.is_file():
                text = path.read_text().replace(URL, redis.url)
                systemd.write(f"{FOLDER}/systemd/{path.name}", text)
        for found in FENCE.finditer(TEXT):
            body = found["body"]
            match found["language"]:
                case "ini":
                    systemd.write(body.partition("\n")[0].removeprefix("# "), body)
                case "sh":
                    printed = systemd.run("sh", "-ec", f"cd {FOLDER}\n{body}")
                case _:
                    assert re.fullmatch(as_pattern(body), printed), printed
                    compared += 1
        with App(broker=redis.url) as app:
            assert app.send_task("tasks.add", [2, 3]).get(timeout=30) == 5
        unit = "upshot-worker@shop"
        assert "WORKER_SHUTDOWN_TIMEOUT=600" in systemd.show(unit, "Environment")
        systemd.run("systemctl", "stop", unit)
        assert systemd.show(unit, "Result") == "success"

    assert compared == 2


def test_its_settings_have_the_defaults_that_it_tells() -> None:
    told = re.findall(r"^\| `(\w+)` \| (?:`)?([\w ]+?)(?:`)? \|", TEXT, re.MULTILINE)
    said: dict[object, str] = {
        25.0: "25 s",
        30.0: "30 s",
        86_400.0: "a day",
        None: "none",
        "upshot": "upshot",
    }

    assert len(told) == 6
    assert [name for name, text in told if said[SETTINGS[name].default] != text] == []


def test_its_exit_codes_are_those_of_the_command() -> None:
    told = re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)

    assert [int(code) for code in told] == [exits.OK, exits.FAILED, exits.USAGE]
