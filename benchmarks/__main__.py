"""Measures upshot, the drivers by themselves and the peers, in turn.

python -m benchmarks                          everything
python -m benchmarks --quick                  a first look, under two minutes
python -m benchmarks --service redis sqlite --group micro --contender upshot raw
python -m benchmarks --lines run.ndjson       each figure as a line of JSON, with its samples
python -m benchmarks --page docs/benchmarks.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Figure, table
from benchmarks.groups import GROUPS
from benchmarks.page import page
from benchmarks.services import SERVICES, started

__all__ = ["main"]


def main() -> None:
    """Measure what the arguments say, and print a table for each group."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and figures")
    parser.add_argument("--service", nargs="+", choices=SERVICES, default=SERVICES)
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--lines", type=Path, help="a file for the figures")
    parser.add_argument("--page", type=Path, help="a Markdown file for the tables")
    options = parser.parse_args()
    console = Console(width=200)
    measured: dict[str, list[Figure]] = {}
    for group in options.group:
        title, run = GROUPS[group]
        figures: list[Figure] = []
        for service in options.service:
            entrants = [each for each in options.contender if service in CONTENDERS[each].services]
            with started(service) as url:
                figures += run(service, url, entrants, options.quick)
        console.print(table(title, figures))
        measured[title] = figures
    if options.lines is not None:
        lines = [each.line() for figures in measured.values() for each in figures]
        options.lines.write_text("".join(line + "\n" for line in lines))
    if options.page is not None:
        options.page.write_text(page(measured, "make bench"))


if __name__ == "__main__":
    main()
