"""`docs/writing-a-backend.md` is true: its code is what is tested, and its commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.pages import FENCE, as_pattern
from upshot.backend import Capabilities
from upshot_conformance.clauses import CLAUSES
from upshot_conformance.plugin import pytest_addoption

from .running import HERE, install, register

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "writing-a-backend.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "backends"
LABEL = re.compile(r"# ([\w./-]+)\n")
FOLDERS = {
    "upshot_files": EXAMPLES / "files",
    "upshot_dict": EXAMPLES / "socket",
    "pyproject.toml": EXAMPLES / "files",
    ".github": EXAMPLES / "files",
}
"""Where the files lie of which the page shows parts, by the first part of their path."""

WHOLE = {"upshot_leaf.py", "upshot_leaf_harness.py", "known_failures.toml"}
"""The files that are on the page and nowhere else."""

READ_IN_FULL = {
    "upshot_files/backend.py",
    "upshot_files/harness.py",
    "pyproject.toml",
    ".github/workflows/conformance.yml",
}
"""The files of which the page shows every line."""


@dataclass
class Block:
    """A fenced block: a file, or a part of one, commands, or what the last of them print."""

    language: str
    body: str

    @property
    def name(self) -> str:
        """The file, which stands in the first line; "" for commands and output."""
        label = LABEL.match(self.body)
        return label[1] if label else ""

    @property
    def text(self) -> str:
        """What is in the file."""
        return LABEL.sub("", self.body, count=1)


@dataclass
class Step:
    """The commands of one block, and what they printed."""

    commands: list[str]
    expected: str = ""
    printed: str = ""
    codes: list[int] = field(default_factory=list[int])


@cache
def blocks() -> tuple[Block, ...]:
    return tuple(Block(match["language"], match["body"]) for match in FENCE.finditer(TEXT))


def named() -> dict[str, list[str]]:
    """Return the parts of each file that the page shows, in order."""
    found: dict[str, list[str]] = {}
    for block in blocks():
        if block.language not in {"sh", "output"}:
            found.setdefault(block.name, []).append(block.text)
    return found


def steps() -> list[Step]:
    """Return all commands, each block with the output that stands behind it."""
    found: list[Step] = []
    for block in blocks():
        if block.language == "sh":
            found.append(Step(block.body.splitlines()))
        elif block.language == "output":
            found[-1].expected = block.body
    return found


# -- what stands on the page ---------------------------------------------------------------------


def test_every_block_says_what_it_is() -> None:
    languages = {block.language for block in blocks()}

    assert languages == {"python", "toml", "yaml", "sh", "output"}
    assert "" not in named()


@pytest.mark.parametrize("name", sorted(named().keys() - WHOLE))
def test_a_part_of_a_file_is_in_that_file(name: str) -> None:
    left = (FOLDERS[name.partition("/")[0]] / name).read_text(encoding="utf-8")

    for part in named()[name]:
        before, found, left = left.partition(part.rstrip("\n"))
        assert found, f"{name} has no such lines, or has them in another order:\n{part}"
        assert name not in READ_IN_FULL or not before.strip(), f"the page left out:\n{before}"

    assert name not in READ_IN_FULL or not left.strip(), f"the page left out:\n{left}"


def test_every_link_leads_somewhere() -> None:
    links: list[str] = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT)
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}

    files = [link for link in links if not link.startswith("#")]
    assert [link for link in files if not (PAGE.parent / link).exists()] == []
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_every_clause_on_the_page_is_in_the_contract() -> None:
    named_here = set(re.findall(r"\b(?:ID|ST|RS|FL|WT|RD|RL|EX|BT|FT|IS|SE|CP)-\d+\b", TEXT))

    assert named_here
    assert named_here <= CLAUSES.keys()


def test_every_capability_is_explained_in_its_order() -> None:
    section = TEXT.partition("## Capabilities, field by field")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)

    assert rows == list(Capabilities.__dataclass_fields__)


def test_every_option_on_the_page_exists() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    group = parser.getgroup("upshot conformance")
    known = {name for option in group.options for name in option.names()}

    options = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert {"--certify", "--clause"} <= options
    assert options <= known


# -- what the page tells to do ---------------------------------------------------------------------


class Tour:
    """Does what the page says, from its first command to its last, outside of the repository.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._here = folder / "work"
        self._site = folder / "site"
        self._source = self._here / "upshot-files"
        self._here.mkdir()
        self._site.mkdir()

    def take(self, step: Step) -> None:
        """Run the commands of a step, and note what they print and how they end."""
        for line in step.commands:
            if line.startswith("cd "):
                self._here = self._here / line.removeprefix("cd ")
                code, text = 0, ""
            elif line.startswith("pip install --editable"):
                code, text = self._install()
            elif line.startswith("pip install"):
                code, text = 0, ""  # it is installed
            else:
                code, text = self._run(line)
            step.codes.append(code)
            step.printed += text

    def _install(self) -> tuple[int, str]:
        """Install what was written; its modules are imported from where they are edited."""
        install(self._source, self._site)
        for name in WHOLE:
            folder = self._site if name.endswith(".py") else self._source
            (folder / name).write_text(named()[name][0], encoding="utf-8")
        entry = {"leaf": "upshot_leaf:LeafBackend"}
        register(self._site, "upshot.backends", entry, name="leaf")
        entry = {"leaf": "upshot_leaf_harness:LeafHarness"}
        register(self._site, "upshot.conformance", entry, name="leaf_harness")
        return 0, ""

    def _run(self, line: str) -> tuple[int, str]:
        clean = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
        # Private servers are looked for from elsewhere.
        clean.setdefault("UPSHOT_SERVICES_DIR", str(ROOT / ".services"))
        inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        path = [str(self._source), str(self._site), *map(os.path.abspath, inherited)]
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._here,
            env={
                **clean,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(path),
                "PYTHONDONTWRITEBYTECODE": "1",
                "COLUMNS": "100",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout


STEPS: Final = steps()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Every step of the page, taken in order."""
    guide = Tour(tmp_path_factory.mktemp("docs"))
    for step in STEPS:
        guide.take(step)
    return STEPS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("index", range(len(STEPS)))
def test_the_commands_do_what_the_page_says(tour: list[Step], index: int) -> None:
    step = tour[index]

    fails = [line.endswith("# fails") for line in step.commands]
    assert [code != 0 for code in step.codes] == fails, step.printed
    assert re.fullmatch(as_pattern(step.expected), step.printed) or not step.expected, step.printed
