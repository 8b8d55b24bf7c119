"""Measures upshot, the drivers by themselves and the peers, in turn.

python -m benchmarks                          everything
python -m benchmarks --quick                  a first look, under two minutes
python -m benchmarks --service redis sqlite --group micro --contender upshot raw
python -m benchmarks --lines run.ndjson       each figure as a line of JSON, with its samples
python -m benchmarks --page docs/benchmarks.md      and the plot beside it, benchmarks.svg
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import table
from benchmarks.groups import GROUPS
from benchmarks.page import Run, page
from benchmarks.player import compile_ours
from benchmarks.plot import plot
from benchmarks.services import SERVICES, started
from benchmarks.targets import board, verdicts

__all__ = ["main"]

_FIRST_LOOK = ("upshot", "raw", "celery", "huey")
"""Who takes part in a quick run unless the command says otherwise: the floor, and two peers."""


def main() -> None:
    """Measure what the arguments say, and print a table for each group at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, figures and contenders")
    parser.add_argument("--service", nargs="+", choices=SERVICES, default=SERVICES)
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, help="all, or a few if quick")
    parser.add_argument("--lines", type=Path, help="a file for the figures")
    parser.add_argument("--page", type=Path, help="a Markdown file for the tables")
    parser.add_argument(
        "--command",
        default=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        help="what the page says it was made by [this command]",
    )
    options = parser.parse_args()
    compile_ours()
    contenders = options.contender or (_FIRST_LOOK if options.quick else tuple(CONTENDERS))
    console = Console(width=200)
    run = Run(options.command)
    for name in options.group:
        run.groups[GROUPS[name].title], run.seconds[GROUPS[name].title] = [], 0.0
    began = time.monotonic()
    for service in options.service:
        groups = [each for each in options.group if service in GROUPS[each].services]
        if groups:
            _measure(run, service, groups, contenders, options.quick)
        if options.lines is not None:  # what there is, even if a later service fails
            options.lines.write_text("".join(each.line() + "\n" for each in run.figures))
    run.seconds["all, with starting services"] = time.monotonic() - began
    for title, figures in run.groups.items():
        console.print(table(title, figures))
    found = verdicts(run.figures)
    console.print(board(found))
    for title, seconds in run.seconds.items():
        _say(f"{title}: {seconds:.0f} s")
    met = [each.met for each in found]
    _say(
        f"Targets: {met.count(True)} met, {met.count(False)} missed, {met.count(None)} not measured"
    )
    if options.page is not None:
        picture = options.page.with_suffix(".svg")
        picture.write_text(plot(run.figures))
        options.page.write_text(page(run, picture.name))


def _measure(
    run: Run, service: str, groups: Sequence[str], contenders: Sequence[str], quick: bool
) -> None:
    """Start a service, and measure there what all of the groups ask."""
    entrants = [each for each in contenders if service in CONTENDERS[each].services]
    with started(service) as url:
        for name in groups:
            group, began = GROUPS[name], time.monotonic()
            run.groups[group.title] += group.run(service, url, entrants, quick)
            seconds = time.monotonic() - began
            run.seconds[group.title] += seconds
            _say(f"{service}, {name}: {seconds:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
