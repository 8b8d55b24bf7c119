"""The README is true: its programs run, its commands exist, its table is current."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.pages import Block, as_pattern, blocks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BACKEND = "upshot_files.py"
LONGEST_BACKEND = 60


BLOCKS = blocks(README)
PROGRAMS = {block.name: block for block in BLOCKS if block.language == "python"}
ALONE = ["one_file.py", "services.py"]
WITH_WORKER = sorted(PROGRAMS.keys() - {*ALONE, "tasks.py", BACKEND})
SUBCOMMANDS = ("worker", "call", "result", "results", "purge", "backends", "config", "conformance")
COMMANDS = [line for block in BLOCKS if block.language == "sh" for line in block.body.splitlines()]


def environment(**more: str) -> Mapping[str, str]:
    """This process's environment without anybody's settings of upshot."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSHOT_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def output_of(block: Block, folder: Path) -> str:
    """Write a program into `folder`, run it there, and return what it printed."""
    path = folder / block.name
    path.write_text(block.body, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the README's `tasks.py` and a worker for it, started as the README says."""
    where = tmp_path_factory.mktemp("readme")
    (where / "tasks.py").write_text(PROGRAMS["tasks.py"].body, encoding="utf-8")
    assert "upshot -A tasks worker" in COMMANDS
    with (where / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "upshot", "-A", "tasks", "worker", "-c", "1"],
            cwd=where,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield where
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()


def test_every_program_has_a_file_name_of_its_own() -> None:
    names = [block.name for block in BLOCKS if block.language in {"python", "toml"}]

    assert all(names)
    assert len(names) == len(set(names))
    assert {block.language for block in BLOCKS} == {"python", "toml", "sh"}


@pytest.mark.parametrize("name", ALONE)
def test_a_program_without_a_worker_prints_what_the_readme_says(name: str, tmp_path: Path) -> None:
    block = PROGRAMS[name]

    assert output_of(block, tmp_path) == (block.output or "")


@pytest.mark.parametrize("name", WITH_WORKER)
def test_a_program_with_a_worker_prints_what_the_readme_says(name: str, folder: Path) -> None:
    block = PROGRAMS[name]

    assert block.output is not None
    assert re.fullmatch(as_pattern(block.output), output_of(block, folder))


def test_the_first_example_is_ten_lines_or_less() -> None:
    lines = [line for line in PROGRAMS["one_file.py"].body.splitlines()[1:] if line.strip()]

    assert len(lines) <= 10


def test_the_readme_names_the_two_commands_first() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    program, *words = command.split()

    match program:
        case "make":
            makefile = (ROOT / "Makefile").read_text()
            assert f"\n.PHONY: {words[0]}\n" in makefile
        case "upshot":
            command_name = next(word for word in words if word in SUBCOMMANDS)
            arguments = [sys.executable, "-m", "upshot", command_name, "--help"]
            assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
        case "pip":
            extras = [
                extra for each in re.findall(r"\[(.*?)\]", command) for extra in each.split(",")
            ]
            assert set(extras) <= project["optional-dependencies"].keys()
        case _:
            assert command.startswith("python -m pytest -p upshot_conformance.plugin")


def test_what_is_written_as_a_command_in_a_sentence_exists_too() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)", README))

    assert targets
    assert {target for target in targets if f"\n.PHONY: {target}\n" not in makefile} == set()


def test_the_readme_tells_of_the_first_argument_of_app_in_one_paragraph() -> None:
    section = README.partition("## The first argument of App\n")[2].partition("\n## ")[0]

    assert section.strip()
    assert "\n\n" not in section.strip()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_capabilities_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.capability_table", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_matrix_of_what_is_proven_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "conformance_matrix.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_backend_in_the_readme_is_as_short_as_it_says() -> None:
    body = PROGRAMS[BACKEND].body
    code = [line for line in body.splitlines() if not re.match(r'\s*(#|"""|$)', line)]

    assert "in less than sixty lines of code" in README
    assert len(code) < LONGEST_BACKEND


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the README's backend was installed as a distribution."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for block in BLOCKS:
        if block.name in {BACKEND, "pyproject.toml"}:
            (source / block.name).write_text(block.body, encoding="utf-8")
    # What is needed is installed already; nothing is fetched.
    options = "--quiet --no-deps --no-index --no-build-isolation --disable-pip-version-check"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options.split(), "--target", target, source],
        check=True,
    )
    return target


@pytest.mark.timeout(660)
def test_the_backend_in_the_readme_is_installed_and_passes_the_suite(
    site: Path, tmp_path: Path
) -> None:
    (command,) = (line for line in COMMANDS if "--backend=files://" in line)
    words = command.replace("/tmp/results", f"{tmp_path}/results").split()

    done = subprocess.run(
        [sys.executable, *words[1:], "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "conformance of files, contract 1.0" in done.stdout
    assert "verdict: partial" in done.stdout
    assert " failed" not in done.stdout.partition("clauses: ")[2].partition("\n")[0]
