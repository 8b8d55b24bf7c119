"""`docs/django.md` is true: its five steps make a project whose results a browser shows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.browsers import SECONDS, chromium, comes_to_show, shoot, text_of
from tests.pages import FENCE
from upshot import clock
from upshot_conformance.servers.ports import PortReservation

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "django.md").read_text(encoding="utf-8")
PASSWORD = "a long pass phrase"
STAYING = ("upshot_worker", "runserver")  # commands that run until they are stopped


@cache
def five_steps() -> tuple[tuple[str, str], ...]:
    """Return language and body of the blocks of the first section."""
    section = TEXT.partition("\n## Five steps\n")[2].partition("\n## ")[0]
    return tuple((match["language"], match["body"]) for match in FENCE.finditer(section))


def commands() -> list[str]:
    return [
        line for language, body in five_steps() if language == "sh" for line in body.splitlines()
    ]


class Project:
    """A folder in which the steps are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = PortReservation()
        self.port = self._port.number
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if "DJANGO" not in name},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "PYTHONWARNINGS": "ignore",  # of whatever else is installed
        }

    def take(self) -> str:
        """Take all steps; return what the commands printed."""
        printed = ""
        for language, body in five_steps():
            if language == "python":
                name, _, text = body.removeprefix("# ").partition("\n")
                with (self.folder / name).open("a") as file:
                    file.write(text)
            elif language == "sh":
                printed += "".join(map(self._run, body.splitlines()))
        return printed

    def _run(self, command: str) -> str:
        if command.startswith("pip "):
            return ""  # it is installed
        if command.endswith(STAYING):
            self._start(command)
            return ""
        if command.endswith(" createsuperuser"):
            command += " --noinput --username admin --email admin@example.com"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout if " shell " in command else ""

    def _start(self, command: str) -> None:
        if command.endswith("runserver"):
            command += f" --noreload 127.0.0.1:{self.port}"
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(process)

    @property
    def admin(self) -> str:
        """Where the results are."""
        return f"http://127.0.0.1:{self.port}/admin/upshot/result/"

    def kill(self) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)
        self._port.close()

    def await_server(self) -> None:
        deadline = clock.Deadline(SECONDS)
        while not deadline.expired:
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(self.admin, timeout=SECONDS).close()
                return
            clock.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    found = Project(tmp_path_factory.mktemp("django"))
    try:
        yield found
    finally:
        found.kill()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path / "profile") as opened:
        yield opened


@pytest.mark.timeout(300)
def test_five_steps_lead_to_results_in_the_admin(
    project: Project, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    (expected,) = (body for language, body in five_steps() if language == "output")
    assert project.take() == expected
    project.await_server()

    browser.get(project.admin)
    browser.find_element(By.NAME, "username").send_keys("admin")
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    names = "#result_list td.field-task_name"
    comes_to_show(browser, names, "orders.tasks.reserve", "orders.tasks.total")
    assert "Select result" in browser.title
    assert text_of(browser, "#result_list td.field-state_shown") == ["FAILURE", "SUCCESS"]
    listed = shoot(browser, "list", tmp_path)

    browser.find_element(By.CSS_SELECTOR, "a[href='?state=FAILURE']").click()
    comes_to_show(browser, names, "orders.tasks.reserve")
    browser.find_element(By.CSS_SELECTOR, "#result_list tbody th a").click()
    (traceback,) = text_of(browser, ".field-traceback pre")
    assert 'raise SoldOut(f"no {item} left")' in traceback
    failed = shoot(browser, "failure", tmp_path)

    browser.get(f"{project.admin}?q=orders.tasks.total")
    browser.find_element(By.CSS_SELECTOR, "#result_list tbody th a").click()
    comes_to_show(browser, ".field-value pre", '{"items": 2, "sum": 7}')
    succeeded = shoot(browser, "success", tmp_path)

    assert all(path.stat().st_size > 10_000 for path in (listed, failed, succeeded))


@pytest.mark.timeout(120)
def test_the_commands_of_the_page_are_there(project: Project) -> None:
    names = set(re.findall(r"manage\.py (upshot_\w+)", TEXT))
    commands = ROOT / "contrib" / "upshot_contrib" / "django" / "management" / "commands"

    assert names == {path.stem for path in commands.glob("upshot_*.py")}


def test_every_identifier_of_a_check_is_on_the_page() -> None:
    folder = ROOT / "contrib" / "upshot_contrib" / "django"
    source = "".join(path.read_text() for path in folder.rglob("checks.py"))

    assert set(re.findall(r'id="upshot\.(\w+)"', source)) == set(
        re.findall(r"`(?:upshot\.)?([EW]\d+)`", TEXT)
    )


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
