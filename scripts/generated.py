"""Documents of which a program writes a part: how they are checked, and brought up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "between", "keep"]

ROOT: Final = Path(__file__).resolve().parents[1]


def between(text: str, begin: str, end: str, new: str) -> str:
    """Return a document with `new` between its two markers, each on a line of its own.

    Raises:
        ValueError: a marker is missing.
    """
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"it needs the lines {begin} and {end}")
    return f"{before}{begin}\n{new}\n{end}{after}"


def keep(
    documents: Mapping[Path, Callable[[str], str]],
    *,
    doc: str | None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Check or write documents, as the command line says; return the exit code.

    Args:
        documents: for each one what makes the text that it should have from the one it has.
        doc: of the script, whose first line is its description, and whose third how it is called.
        arguments: of the command line; None takes those of this process.
    """
    title, *usage = (doc or "").splitlines()
    parser = argparse.ArgumentParser(description=title)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="fail if something is out of date")
    choice.add_argument("--write", action="store_true", help="bring it up to date")
    options = parser.parse_args(arguments)
    command = usage[1].partition("--")[0] if len(usage) > 1 else ""
    code = 0
    for path, updated in documents.items():
        name, text = path.relative_to(ROOT), path.read_text(encoding="utf-8")
        try:
            right = updated(text)
        except ValueError as exc:
            sys.stderr.write(f"{name}: {exc}\n")
            return 1
        if options.write:
            path.write_text(right, encoding="utf-8")
        elif text != right:
            sys.stderr.write(f"{name} is out of date; run: {command}--write\n")
            code = 1
    return code
