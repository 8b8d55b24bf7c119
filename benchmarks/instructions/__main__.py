"""Counts the instructions of the hottest paths, and holds them against what is kept.

python -m benchmarks.instructions             a table; the exit code is 1 if a path is off its mark
python -m benchmarks.instructions --update    the same, and counts.json is written anew
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.instructions.counting import CountingError, count
from benchmarks.instructions.kept import Kept, complaints, made_with

__all__ = ["main"]


def main() -> int:
    """Do what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    options = parser.parse_args()
    try:
        reference, paths = count()
    except CountingError as exc:
        print(exc, file=sys.stderr)
        return 2
    kept = Kept.read()
    ratios = {name: each / reference for name, each in paths.items()}
    Console().print(_table(paths, ratios, kept.ratios))
    if options.update:
        rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
        Kept(made_with(), round(reference), rounded).write()
        return 0
    found = complaints(ratios, kept, made_with())
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


def _table(
    paths: Mapping[str, float], ratios: Mapping[str, float], kept: Mapping[str, float]
) -> Table:
    table = Table("path", title="Instructions")
    for heading in ("per call", "ratio", "kept", "change"):
        table.add_column(heading, justify="right")
    for name, ratio in ratios.items():
        before = kept.get(name)
        known = ("", "") if before is None else (f"{before:.2f}", f"{ratio / before - 1:+.1%}")
        table.add_row(name, f"{paths[name]:,.0f}", f"{ratio:.2f}", *known)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
