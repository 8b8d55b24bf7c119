"""Pages of Markdown as tests read them: fenced blocks, each with what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

__all__ = ["FENCE", "Block", "as_pattern", "blocks", "help_of"]

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"# ([\w./-]+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: a file, or commands.

    Attributes:
        language: what stands behind the fence.
        body: all of its lines.
        output: the block of output that follows it; None if none does.
    """

    language: str
    body: str
    output: str | None = None

    @property
    def name(self) -> str:
        """The file, which stands in a comment in the first line; "" for commands."""
        label = _LABEL.match(self.body) if self.language != "sh" else None
        return label[1] if label else ""


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, in order; those of output belong to the ones before them."""
    found: list[Block] = []
    for match in FENCE.finditer(text):
        if match["language"] == "output":
            found[-1] = Block(found[-1].language, found[-1].body, match["body"])
        else:
            found.append(Block(match["language"], match["body"]))
    return found


def as_pattern(expected: str) -> str:
    """Return a regular expression for an output in which `…` stands for anything.

    A line of nothing but `…` stands for any number of lines.
    """
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r" *\n"
        for line in expected.splitlines()
    ]
    return "".join(lines)


def help_of(*commands: str) -> str:
    """Return what these sub-commands of `upshot` say of themselves, all together."""
    return "".join(
        subprocess.run(
            [sys.executable, "-m", "upshot", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    )
