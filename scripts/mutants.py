"""Runs the conformance suite on every mutant and prints what became of each.

python -m scripts.mutants                          all, above memory, redis and sqlite
python -m scripts.mutants --over=memory states     those of one module, above memory only

Exit code 1 if one survived that has no reason to, is broken, or hung, or if a control went red.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from tests.conformance import mutants
from tests.conformance.mutants import core, judge
from tests.conformance.mutants.judge import Fate
from tests.conformance.mutants.kinds import Mutant

AT_ONCE: Final = 2
"""Runs at the same time: each waits as much as it works."""

DEFAULT: Final = ("memory", "redis", "sqlite")


@dataclass(frozen=True)
class Row:
    """One line of the matrix: a mutant, its clause, and its fate above each backend."""

    name: str
    clause_id: str
    fates: Sequence[str]
    why: str

    @property
    def is_red(self) -> bool:
        """True if it was not killed where it must be."""
        return any(fate not in (Fate.KILLED, "green", "-") for fate in self.fates)


def rows(chosen: Sequence[str], over: Sequence[str]) -> Iterator[Row]:
    """Judge what was chosen, all if nothing was; yield each as soon as it and those before are."""

    def is_chosen(name: str) -> bool:
        return not chosen or any(word in name for word in chosen)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        layers = [each for each in mutants.backends() if is_chosen(mutants.name_of(each))]
        broken = [name for name in core.MUTANTS if is_chosen(f"core: {name}")]
        yield from pool.map(lambda mutant: _layer(mutant, over), layers)
        yield from pool.map(lambda name: _core(name, len(over)), broken)


def _layer(mutant: type[Mutant], over: Sequence[str]) -> Row:
    fates = [_fate(mutant, scheme) for scheme in over]
    why = mutant.memory_only or mutant.network_only or mutant.push_only or mutant.login_only
    return Row(mutants.name_of(mutant), mutant.kills or "control", fates, why)


def _fate(mutant: type[Mutant], scheme: str) -> str:
    name = mutants.name_of(mutant)
    if not mutant.is_a_bug_above(scheme):
        return "-"
    if not mutant.kills:
        return "green" if judge.control(name, over=scheme).code == 0 else "RED"
    return judge.backend(name, mutant.kills, over=scheme, disruptive=mutant.disruptive).fate


def _core(name: str, columns: int) -> Row:
    clause_id, _ = core.MUTANTS[name]
    fate = judge.core(name, clause_id).fate
    return Row(f"core: {name}", clause_id, [fate, *["-"] * (columns - 1)], "the core is broken")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the matrix; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--over", default=",".join(DEFAULT), metavar="SCHEMES", help="with commas between them"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a mutant's name")
    asked = parser.parse_args(arguments)
    over = str(asked.over).split(",")
    sys.stdout.write(f"{'mutant':44}{'clause':9}" + "".join(f"{each:12}" for each in over))
    fates: Counter[str] = Counter()
    red = 0
    for row in rows(asked.names, over):
        line = f"\n{row.name:44}{row.clause_id:9}" + "".join(f"{each:12}" for each in row.fates)
        sys.stdout.write(f"{line}{row.why}".rstrip())
        sys.stdout.flush()
        fates.update(map(str, row.fates))
        red += row.is_red
    counted = ", ".join(f"{count} {fate}" for fate, count in fates.most_common() if fate != "-")
    sys.stdout.write(f"\n\n{counted}; {red} rows to look at\n")
    return int(red > 0)


if __name__ == "__main__":
    sys.exit(main())
