"""The page about Celery's own backends says what is kept, and what is kept is still so."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from scripts import celery_backends
from scripts.celery_notes import LABELS, NOT_MEASURED, NOTES, not_measured
from scripts.celery_page import mark

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Standing

CHECKED = "celery+db+sqlite"
"""The backend that is measured here: it needs no server."""

CLAUSES_CHECKED = ("ST-2", "ST-6", "RD-3", "RL-8")
"""Two that it breaks, one that it keeps, one that is refused as declared: of a few seconds."""


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    """That of a process which finds the adapter."""
    with celery_backends.installed() as found:
        yield found


def test_the_page_is_what_the_figures_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert celery_backends.main(["check"]) == 0, capsys.readouterr().err


def test_the_page_has_a_cell_for_every_clause_and_backend() -> None:
    rows = re.findall(
        r"^\| \[([A-Z]+-\d+)\]\(.*?\) (.*) \|$", celery_backends.PAGE.read_text(), re.M
    )

    assert [clause_id for clause_id, _ in rows] == list(CLAUSES)
    assert {cells.count("|") for _, cells in rows} == {len(LABELS)}


def test_no_cell_is_left_open() -> None:
    cells = {
        (each.label, clause_id): mark(each, clause_id)
        for each in celery_backends.kept()
        for clause_id in CLAUSES
    }

    assert {label for label, _ in cells} == set(LABELS)
    assert [where for where, shown in cells.items() if "not run" in shown] == []


def test_every_note_is_about_something_that_is_broken() -> None:
    broken = {
        (clause_id, each.label)
        for each in celery_backends.kept()
        for clause_id, standing in each.standings.items()
        if standing is Standing.FAILED
    }
    noted = {
        (clause_id, label)
        for clause_id, notes in NOTES.items()
        for note in notes
        for label in note.labels
    }

    assert noted <= broken
    assert {name for each in NOT_MEASURED for name in each.clauses} <= CLAUSES.keys()


def test_a_run_finds_the_services_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSHOT_SERVICES_DIR", raising=False)
    assert celery_backends.variables({"A": "1"})["UPSHOT_SERVICES_DIR"] == str(
        celery_backends.ROOT / ".services"
    )

    monkeypatch.setenv("UPSHOT_SERVICES_DIR", "/elsewhere")
    found = celery_backends.variables({"A": "1"})
    assert (found["UPSHOT_SERVICES_DIR"], found["A"]) == ("/elsewhere", "1")


RUN = """
import importlib, sys
from scripts import celery_backends as it

def found(name, result):
    return importlib.import_module("upshot_over_celery." + name) and result

it.measure = lambda *_: found("harnesses", it.kept()[0])
it.look = lambda *_: found("plain", it.kept_plain())
it.keep = it.replace_file = lambda *_: None
sys.exit(it.main(["run"]))
"""


def test_a_whole_run_finds_the_adapter_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=celery_backends.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(300)
def test_what_is_kept_is_still_so(environment: Mapping[str, str], tmp_path: Path) -> None:
    (before,) = (each for each in celery_backends.kept() if each.label == CHECKED)

    # Without random programs, which take longer than all the rest.
    found = celery_backends.measure(
        CHECKED, environment, tmp_path, CLAUSES_CHECKED, "-k", "not program"
    )

    assert not any(not_measured(each, CHECKED) for each in CLAUSES_CHECKED)
    assert found.standings == {each: before.standings[each] for each in CLAUSES_CHECKED}


def test_what_celery_itself_does_is_still_so(environment: Mapping[str, str]) -> None:
    plain = importlib.import_module("upshot_over_celery.plain")
    kept = celery_backends.kept_plain().seen
    claims = [claim for claim in plain.CLAIMS if CHECKED in claim.backends]

    seen = celery_backends.look([CHECKED], environment).seen

    assert len(claims) > 3
    for claim in claims:
        name = f"{claim.clause}: {claim.done}"
        assert seen[name] == {CHECKED: kept[name][CHECKED]}
