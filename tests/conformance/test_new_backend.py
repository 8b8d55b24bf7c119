"""`upshot backends new`: what it writes, what it refuses, and that what it wrote conforms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from upshot.cli.new_backend import write_backend
from upshot.errors import ConfigError

from .running import HERE, SUITE, install, run_suite

EXAMPLE = HERE.parents[1] / "examples" / "backends" / "files"


def contents(folder: Path) -> dict[str, str]:
    """Return the text of every file that is or could be committed."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name: (folder / name).read_text() for name in names.split("\0") if name}


def upshot(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "upshot", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.timeout(600)
def test_a_new_backend_is_installed_and_certified_as_it_is(tmp_path: Path) -> None:
    source, site, outside = tmp_path / "source", tmp_path / "site", tmp_path / "outside"
    outside.mkdir()

    made = upshot("backends", "new", "my-shelf", str(source), folder=tmp_path)
    assert made.returncode == 0, made.stderr
    install(source, site)
    outcome = run_suite(outside, *SUITE, "--backend=my-shelf", "--certify", path=[site])
    own = run_suite(source, "tests", path=[site])

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "conformance: my-shelf (upshot-my-shelf 0.1.0) at my-shelf://" in outcome.text
    assert "verdict: conformant" in outcome.text
    assert "certified" in outcome.text
    assert own.code == pytest.ExitCode.OK, own.text


def test_the_command_says_what_it_wrote_and_how_to_test_it(tmp_path: Path) -> None:
    made = upshot("backends", "new", "shelf", "the shelf", folder=tmp_path)

    written = re.findall(r"^wrote (.+)$", made.stdout, re.MULTILINE)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(written) == sorted(files)
    assert "  cd 'the shelf'\n" in made.stdout
    assert "  upshot conformance shelf --certify\n" in made.stdout


def test_the_example_is_what_the_command_writes(tmp_path: Path) -> None:
    written = write_backend("files", tmp_path / "files")

    found = {str(path.relative_to(tmp_path / "files")): path.read_text() for path in written}
    assert found == contents(EXAMPLE), "run: upshot backends new files examples/backends/files"


@pytest.mark.parametrize("name", ["shelf", "a", "x9-2", "my-own-shelf", "a" * 32])
def test_nothing_of_the_template_s_own_words_is_left(name: str, tmp_path: Path) -> None:
    for path in write_backend(name, tmp_path):
        assert "<<" not in path.read_text()
        assert ">>" not in path.read_text()
        assert "files://" not in path.read_text().lower()
        if path.suffix == ".py":
            compile(path.read_text(), path, "exec")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Shelf",
        "9lives",
        "my_shelf",
        "a--b",
        "-a",
        "a-",
        "a/b",
        "../a",
        "a b",
        "é",
        "x" * 33,
        "all",
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_its_rules(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower-case letters and digits"):
        write_backend(name, tmp_path / "new")

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("redis", "upshot offers redis:// already"),
        ("sqlite", "upshot offers sqlite:// already"),
        ("conformance", "a module upshot_conformance is installed already"),
        ("backends", "a module upshot_backends is installed already"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        write_backend(name, tmp_path / "new")

    assert not (tmp_path / "new").exists()


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")

    with pytest.raises(ConfigError, match="is not empty"):
        write_backend("shelf", tmp_path)

    assert os.listdir(tmp_path) == [".hidden"]
    assert (tmp_path / ".hidden").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_backend("shelf", tmp_path)
    assert (tmp_path / "upshot_shelf" / "backend.py").is_file()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")

    for name in ("file", "nowhere"):
        with pytest.raises(ConfigError, match="is no folder"):
            write_backend("shelf", tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        write_backend("shelf", tmp_path / "file" / "new")

    assert (tmp_path / "file").read_text() == "mine"


def test_the_command_refuses_with_one_line_and_the_code_for_wrong_usage(tmp_path: Path) -> None:
    done = upshot("backends", "new", "redis", "here", folder=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Error: upshot offers redis:// already: take another name\n"
    assert os.listdir(tmp_path) == []
