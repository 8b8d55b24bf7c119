"""`--conformance-report` on the command line: what a real run leaves in the folder."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Standing
from upshot_conformance.report import Verdict, read

from .mutants.over import ENTRY_POINTS, MUTANT
from .running import SUITE, register, run_suite

PASSWORD = "Tr0ub4dor-unique"
QUICK = "--clause=ST-2"
REPORT = "--conformance-report=out"


def test_a_run_that_finds_a_broken_clause_leaves_every_file(tmp_path: Path) -> None:
    register(tmp_path, "upshot.backends", ENTRY_POINTS, name="mutants")

    outcome = run_suite(
        tmp_path,
        *SUITE,
        f"--backend=mutant+memory://user:{PASSWORD}@here",
        QUICK,
        REPORT,
        "--seed=7",
        "--junitxml=out/pytest.xml",
        path=[tmp_path],
        environment={MUTANT: "states:LateStartOverwrites"},
    )

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "report: out/report.html" in outcome.text
    out = tmp_path / "out"
    evidence = read(out / "results.jsonl")
    (judged,) = evidence.judged
    assert evidence.run.seed == 7
    assert evidence.run.filters == (QUICK,)
    assert evidence.run.complete
    assert "--backend=mutant+memory://user:***@here" in evidence.run.command
    assert judged.verdict is Verdict.NON_CONFORMANT
    assert judged.facts.distribution == "mutants 1.2"
    assert judged.facts.round_trip is not None
    assert judged.cells.keys() == CLAUSES.keys()
    assert judged.cells["ST-2"].standing is Standing.FAILED
    failed = [each for each in evidence.results if each.standing is Standing.FAILED]
    assert failed
    assert all(each.message.startswith("broken clause ST-2: A record that") for each in failed)
    assert json.loads((out / "badge-mutant+memory.json").read_text())["color"] == "red"
    assert 'href="#failed-mutant+memory-ST-2"' in (out / "report.html").read_text()
    assert "### ST-2 on `mutant+memory`" in (out / "report.md").read_text()
    for name in ("junit.xml", "pytest.xml"):  # ours and pytest's own
        failing = ElementTree.parse(out / name).find(".//failure/..")
        assert failing is not None
        assert failing.find("properties/property[@name='clause'][@value='ST-2']") is not None
    for path in out.iterdir():
        assert PASSWORD not in path.read_text(encoding="utf-8"), path.name


def test_workers_of_xdist_are_reported_together(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, QUICK, REPORT, "-n", "2", "-p", "xdist")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    (judged,) = read(tmp_path / "out" / "results.jsonl").judged
    assert judged.facts.label == "memory"
    assert judged.facts.server.startswith("Python ")
    assert judged.verdict is Verdict.PARTIAL
    assert judged.cells["ST-2"].standing is Standing.PASSED


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    outcome = run_suite(tmp_path, *SUITE, QUICK, REPORT)

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "out is no folder" in outcome.text
    assert "INTERNALERROR" not in outcome.text
    assert (tmp_path / "out").read_text() == "mine"
