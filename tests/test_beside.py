"""How tests run beside each other, tried out on tests that write down when they ran and where."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDING = """
import json, os, time
import pytest

@pytest.fixture(autouse=True)
def recorded(request):
    began = time.monotonic()
    yield
    time.sleep(0.1)
    run = [request.node.name, os.getpid(), began, time.monotonic()]
    with open("runs", "a") as runs:
        runs.write(json.dumps(run) + "\\n")
"""
FILES = {
    "conftest.py": RECORDING,
    "test_few.py": """
import pytest

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number): ...

def test_one_of_few(): ...
""",
    "test_long.py": """
import pytest

@pytest.mark.timeout(500)
def test_long(): ...
""",
    "test_many.py": """
import pytest

@pytest.mark.parametrize("number", range(20))
def test_one_of_many(number): ...

@pytest.mark.apart
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(2))
def test_apart(number): ...
""",
}


@dataclass(frozen=True)
class Ran:
    """One run of a test: in which process, and when, in seconds."""

    name: str
    process: int
    began: float
    ended: float

    def overlaps(self, other: Ran) -> bool:
        return self.began < other.ended and other.began < self.ended


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[Ran]:
    """What two processes ran, in the order in which it began."""
    folder = tmp_path_factory.mktemp("beside")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    options = ["-p", "tests.beside", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]
    own = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *own, *options, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folder / "runs").read_text().splitlines()
    return sorted((Ran(*json.loads(line)) for line in lines), key=lambda each: each.began)


def named(ran: list[Ran], start: str) -> list[Ran]:
    return [each for each in ran if each.name.startswith(start)]


def test_the_tests_of_a_file_stay_together_and_in_order(ran: list[Ran]) -> None:
    many = named(ran, "test_one_of_many")

    assert [each.name for each in many] == [f"test_one_of_many[{n}]" for n in range(20)]
    assert len({each.process for each in many}) == 1


def test_what_is_apart_runs_wherever_there_is_room(ran: list[Ran]) -> None:
    assert len({each.process for each in named(ran, "test_apart")}) == 2


def test_what_may_take_longest_begins_first_and_then_what_is_most(ran: list[Ran]) -> None:
    first = {each.name: each.began for each in reversed(ran)}

    assert {each.name for each in ran[:2]} == {"test_apart[0]", "test_apart[1]"}
    assert first["test_long"] < first["test_one_of_few"]
    assert first["test_one_of_many[0]"] < first["test_one_of_few"]


def test_what_is_alone_comes_last_and_beside_nothing(ran: list[Ran]) -> None:
    alone = named(ran, "test_alone")
    others = [each for each in ran if each not in alone]

    assert len(alone) == 3
    assert not any(one.overlaps(other) for one in alone for other in others)
    assert any(one.overlaps(other) for one in others for other in others if one is not other)
