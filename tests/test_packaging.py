"""What is built and installed: the wheel, its entry points, the Makefile."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint, distribution, entry_points
from pathlib import Path
from typing import Any

import click
import pytest

from upshot import App

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    pytest.param(group, name, value, id=f"{group}-{name}")
    for group, entries in PROJECT["entry-points"].items()
    for name, value in entries.items()
]


def packaged_files() -> set[str]:
    """Every file of the four packages, as it should be in the wheel."""
    roots = [ROOT / name for name in ("core", "backends", "contrib", "conformance")]
    return {
        path.relative_to(root).as_posix()
        for root in roots
        for path in root.glob("upshot*/**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built here and now."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_exactly_the_four_packages(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert {name.partition("/")[0] for name in names} == {
        "upshot",
        "upshot_backends",
        "upshot_conformance",
        "upshot_contrib",
    }
    assert names == packaged_files()


def test_the_wheel_has_what_is_not_python_too(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()

    assert "upshot/py.typed" in names
    assert any(name.startswith("upshot_backends/redis/") and ".lua" in name for name in names)


def test_the_wheel_has_the_license_and_the_readme(wheel: zipfile.ZipFile) -> None:
    (license_name,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))

    assert wheel.read(license_name) == (ROOT / "LICENSE").read_bytes()
    assert (ROOT / "README.md").read_text() in wheel.read(metadata).decode()


@pytest.mark.parametrize(("group", "name", "value"), DECLARED)
def test_every_entry_point_loads(group: str, name: str, value: str) -> None:
    loaded = EntryPoint(name, value, group).load()

    assert isinstance(loaded, click.Command if group == "upshot.commands" else type)


@pytest.mark.parametrize(("group", "name", "value"), DECLARED)
def test_every_entry_point_is_installed(group: str, name: str, value: str) -> None:
    found = {
        entry.value
        for entry in entry_points(group=group, name=name)
        if entry.dist is not None and entry.dist.name == PROJECT["name"]
    }

    assert found == {value}, "pyproject.toml has changed: run pip install -e . again"


def test_the_command_is_installed_and_answers() -> None:
    ((name, value),) = PROJECT["scripts"].items()
    done = subprocess.run(
        [sys.executable, "-m", "upshot", "version"], capture_output=True, text=True, check=True
    )

    assert callable(EntryPoint(name, value, "console_scripts").load())
    assert distribution("upshot").version == PROJECT["version"]
    assert PROJECT["version"] in done.stdout


def test_everything_is_in_the_extra_that_is_called_all() -> None:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = re.fullmatch(r"upshot\[(.*)\]", everything)

    assert named is not None
    assert set(named[1].split(",")) == extras.keys() - {"all"}


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\w+)$", text, re.MULTILINE))
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert targets >= {"help", "demo", "test", "lint", "services", "clean"}
    assert set(re.findall(r"^  make (\w+) +\S", done.stdout, re.MULTILINE)) == targets


def test_importing_upshot_imports_no_driver() -> None:
    drivers = ["redis", "sqlalchemy", "msgpack", "pytest", "upshot_backends", "click", "rich"]
    program = f"import sys, upshot; print([m for m in {drivers} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert App.__module__ == "upshot.app"
    assert done.stdout.strip() == "[]"
