"""Makes the reports of tests that never ran, as pytest would make them, and tallies of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import KIND, Kind
from upshot_conformance.options import Options
from upshot_conformance.report import BackendFacts, Evidence, RunFacts, gather
from upshot_conformance.report.lines import dump
from upshot_conformance.verdict import Tally

PASSWORD = "Zq7-Unique/Wort"
ENCODED = "Zq7-Unique%2FWort"
URL = f"redis://user:{ENCODED}@127.0.0.1:6379/0"
FAILED = "broken clause ST-2: a record …\n\nE  assert 'SUCCESS' == 'STARTED'"


def report(
    label: str,
    *clauses: str,
    test: str = "test_it",
    kind: str = "",
    message: str = "",
    skipped: str = "",
    when: str = "call",
) -> pytest.TestReport:
    """Return the report of one phase: passed unless there is a message or a reason to skip."""
    name = f"test_made.py::{test}_{'_'.join(clauses)}[{label}]"
    properties: list[tuple[str, object]] = [("clause", each) for each in clauses]
    properties.append(("backend", label))
    if kind:
        properties.append((KIND, kind))
    outcome = "failed" if message else "skipped" if skipped or _skips(kind) else "passed"
    where = ("test_made.py", 1, f"Skipped: {skipped or kind}")
    return pytest.TestReport(
        nodeid=f"conformance/upshot_conformance/suite/{name}",
        location=("test_made.py", 1, test),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]  # one of the three words that it takes
        longrepr=message or (where if outcome == "skipped" else None),
        when=when,  # type: ignore[arg-type]  # one of the three words that it takes
        user_properties=properties,
        duration=0.25,
    )


def _skips(kind: str) -> bool:
    return kind.partition(":")[0] in set(Kind) - {Kind.REFUSAL, Kind.PROBE, ""}


def tally(
    label: str, others: Iterable[pytest.TestReport] = (), *, passed: Iterable[str] = CLAUSES
) -> Tally:
    """Return a tally in which the clauses have one test each that passed, but for the others'."""
    made = Tally(label, Options())
    reports = list(others)
    seen = {value for each in reports for name, value in each.user_properties if name == "clause"}
    for clause_id in passed:
        if clause_id not in seen:
            made.add(report(label, clause_id))
    for each in reports:
        made.add(each)
    return made


def backend(label: str = "redis", url: str = URL, **more: object) -> BackendFacts:
    """Return what is known about a backend."""
    facts: dict[str, object] = {
        "label": label,
        "url": url,
        "distribution": "upshot 0.1.0",
        "contract": "1.0",
        "server": "Redis 7.2.4",
        "drivers": {"redis": "7.1.0"},
        "capabilities": {"shared": True, "push": False, "visibility": 0.0},
        "round_trip": 0.0005,
        "jitter": 0.05,
        **more,
    }
    return BackendFacts(**facts)  # type: ignore[arg-type]  # tests know what they pass


def run(command: Sequence[str] = ("pytest", "--backend=redis"), **more: object) -> RunFacts:
    """Return how a run was made."""
    facts: Mapping[str, object] = {
        "contract": "1.0",
        "version": "0.1.0",
        "python": "CPython 3.12.3",
        "platform": "Linux",
        "started": "2026-11-28T19:05:36+00:00",
        "duration": 12.5,
        "seed": 42,
        "command": tuple(command),
        **more,
    }
    return RunFacts(**facts)  # type: ignore[arg-type]  # tests know what they pass


def one(others: Iterable[pytest.TestReport] = (), **facts: Any) -> Evidence:
    """The evidence of one backend: all clauses passed, but for what the others say."""
    return gather(run(**facts), [backend()], [tally("redis", others)])


def each_way() -> list[pytest.TestReport]:
    """Reports that make clauses stand in every way that there is."""
    return [
        report("redis", "ST-2", message=FAILED),
        report("redis", "WT-1", kind=f"{Kind.WAIVED}: bug 17"),
        report("redis", "WT-2", kind=f"{Kind.PROVISIONAL}: not before 1.1"),
        report("redis", "RL-6", kind=f"{Kind.UNAVAILABLE}: nobody can count"),
        report("redis", "RD-3", kind=Kind.REFUSAL),
        report("redis", "FT-1", kind=f"{Kind.ABSENT}: there is nothing to cut"),
        report("redis", "FT-3", kind=f"{Kind.NOT_ASKED}: --disruptive was not given"),
        report("redis", "ST-4", kind=f"{Kind.PROBE}: atomic is not declared"),
        report("redis", "CP-2", kind=f"{Kind.DECLARED}: push", test="test_refusal"),
        report("redis", "CP-2"),
    ]


def written(folder: Path, evidence: Evidence, *, summary: bool = False) -> Path:
    """Write the lines of some evidence, and return where."""
    path = folder / "results.jsonl"
    path.write_text(dump(evidence, summary=summary), encoding="utf-8")
    return path
