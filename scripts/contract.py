"""Writes the clauses of the contract into conformance/CONTRACT.md, with what stands behind each.

python -m scripts.contract --check    exit code 1 if the document is out of date
python -m scripts.contract --write    bring it up to date

The sentences come from `upshot_conformance/contract.py`, the tests from the marks in the suite, the
mutants from `tests/conformance/mutants`.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from scripts.generated import ROOT, between, keep
from tests.conformance import mutants
from tests.conformance.mutants import core

from upshot_conformance.clauses import CLAUSES, Clause
from upshot_conformance.contract import GROUPS
from upshot_conformance.plugin import SUITE

DOCUMENT: Final = ROOT / "conformance" / "CONTRACT.md"
BEGIN: Final = "<!-- clauses:begin, made by scripts/contract.py -->"
END: Final = "<!-- clauses:end -->"


def tests() -> Mapping[str, list[str]]:
    """Return the names of the tests that are marked with each clause."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(SUITE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for clause_id in _marked(node):
                    found[clause_id].append(f"{path.stem}.{node.name}")
    return found


def _marked(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "clause":
            yield from (str(each.value) for each in mark.args if isinstance(each, ast.Constant))


def killers() -> Mapping[str, list[str]]:
    """Return the names of the mutants that each clause must kill."""
    found: dict[str, list[str]] = defaultdict(list)
    for mutant in mutants.backends():
        found[mutant.kills].append(mutants.name_of(mutant).replace(":", "."))
    for name, (clause_id, _) in core.MUTANTS.items():
        found[clause_id].append(f"core: {name}")
    return found


def clauses() -> str:
    """Return the generated part of the document."""
    return "\n".join(_lines(tests(), killers()))


def _lines(tests: Mapping[str, list[str]], killers: Mapping[str, list[str]]) -> Iterator[str]:
    bare = {
        "a test": [each for each in CLAUSES if not tests.get(each)],
        "a mutant": [each for each in CLAUSES if not killers.get(each)],
    }
    count = sum(map(len, killers.values())) - len(killers.get("", []))
    names = {name for each in tests.values() for name in each}
    yield f"{len(CLAUSES)} clauses, {len(names)} tests, {count} mutants."
    for what, ids in bare.items():
        yield f"Without {what}: {', '.join(ids) or 'none'}."
    for group, title in GROUPS.items():
        yield f"\n### {title}"
        for clause in CLAUSES.values():
            if clause.group == group:
                yield from _entry(clause, tests.get(clause.id, []), killers.get(clause.id, []))


def _entry(clause: Clause, tests: Sequence[str], killers: Sequence[str]) -> Iterator[str]:
    level = f"{clause.level}, where `{clause.gate}` is declared" if clause.gate else clause.level
    yield f'\n<a id="{clause.id}"></a>'
    yield f"**{clause.id}** ({level}; since {clause.since}). {clause.text}"
    yield f"\n*Why:* {clause.why}"
    behind = f"{_counted(tests, 'test')}, {_counted(killers, 'mutant')}"
    yield f"\n<details><summary>{behind}</summary>\n"
    yield from (f"- `{each}`" for each in tests)
    yield from (f"- kills `{each}`" for each in killers)
    yield "\n</details>"


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names) or 'no'} {what}{'' if len(names) == 1 else 's'}"


if __name__ == "__main__":
    update = partial(between, begin=BEGIN, end=END, new=clauses())
    sys.exit(keep({DOCUMENT: update}, doc=__doc__))
