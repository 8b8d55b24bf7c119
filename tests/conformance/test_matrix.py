"""The script that keeps the evidence of this project's backends and shows it in the README."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Kind
from upshot_conformance.report import BackendFacts, write
from upshot_conformance.verdict import Tally

from .reporting import backend, report, run, tally

SCRIPT = Path(__file__).parents[2] / "scripts" / "conformance_matrix.py"
README = "# shop\n\n<!-- conformance:begin -->\nold\n<!-- conformance:end -->\n\nThe end.\n"
REPORTS = "conformance/reports/1.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a README that has the markers."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "README.md").write_text(README)
    return root


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--root", root, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder: Path, *labels: str, **more: Any) -> str:
    """Write a report of backends that conform but for one clause that does not apply."""
    backends: list[BackendFacts] = [backend(label) for label in labels]
    absent = f"{Kind.ABSENT}: there is nothing to cut"
    tallies: list[Tally] = [tally(label, [report(label, "FT-1", kind=absent)]) for label in labels]
    write(folder, run(**more), backends, tallies)
    return str(folder / "results.jsonl")


def test_what_a_run_has_shown_is_kept_and_shown(root: Path, tmp_path: Path) -> None:
    done = call(root, "--take", results(tmp_path / "out", "redis", "memory"))
    readme = (root / "README.md").read_text()

    assert (done.returncode, done.stderr) == (0, "")
    assert "|  | `memory` | `redis` |" in readme
    assert "| FT: Faults | 4/5 · 1 n/a | 4/5 · 1 n/a |" in readme
    assert "| ID: Identity | 4/4 | 4/4 |" in readme
    assert "2 of 2 backends are conformant" in readme
    assert readme.startswith("# shop\n\n")
    assert readme.endswith("<!-- conformance:end -->\n\nThe end.\n")
    assert sorted(path.name for path in (root / REPORTS).iterdir()) == [
        "README.md",
        "memory.jsonl",
        "redis.jsonl",
    ]
    assert call(root, "--check").returncode == 0


def test_the_matrix_of_all_clauses_stands_beside_what_is_kept(root: Path, tmp_path: Path) -> None:
    call(root, "--take", results(tmp_path / "out", "redis", "memory"))
    text = (root / REPORTS / "README.md").read_text()

    assert all(f"\n| {clause_id} | " in text for clause_id in CLAUSES)
    assert "FT-1 on memory, redis: not applicable (there is nothing to cut)" in text
    assert text.count("pytest --backend=redis") == 1


def test_one_backend_can_be_tested_anew(root: Path, tmp_path: Path) -> None:
    call(root, "--take", results(tmp_path / "out", "redis", "memory"))
    done = call(root, "--take", results(tmp_path / "new", "redis", started="2027-01-02T03:04:05"))

    text = (root / REPORTS / "README.md").read_text()
    assert done.returncode == 0
    assert "2026-11-28" in text
    assert "2027-01-02" in text


def test_what_is_kept_is_small(root: Path, tmp_path: Path) -> None:
    call(root, "--take", results(tmp_path / "out", "redis"))

    assert (root / REPORTS / "redis.jsonl").stat().st_size < 300_000 / 11


def test_a_matrix_that_is_out_of_date_is_found_and_mended(root: Path, tmp_path: Path) -> None:
    call(root, "--take", results(tmp_path / "out", "redis"))
    right = (root / "README.md").read_text()
    (root / "README.md").write_text(right.replace("4/4", "3/4"))

    checked = call(root, "--check")
    assert checked.returncode == 1
    assert "README.md is out of date" in checked.stderr
    assert call(root, "--write").returncode == 0
    assert (root / "README.md").read_text() == right


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"filters": ("--clause=ST",)}, "not every test was run"),
        ({"complete": False}, "not every test was run"),
        ({"contract": "0.9"}, "about contract 0.9"),
    ],
)
def test_a_run_that_shows_nothing_is_not_kept(
    more: dict[str, Any], says: str, root: Path, tmp_path: Path
) -> None:
    done = call(root, "--take", results(tmp_path / "out", "redis", **more))

    assert done.returncode == 1
    assert says in done.stderr
    assert (root / "README.md").read_text() == README
    assert not (root / REPORTS).exists()


def test_evidence_about_other_clauses_is_out_of_date(root: Path, tmp_path: Path) -> None:
    call(root, "--take", results(tmp_path / "out", "redis"))
    path = root / REPORTS / "redis.jsonl"
    header, footer = map(json.loads, path.read_text().splitlines())
    found = footer["backends"]["redis"]
    del found["clauses"]["ST-2"]
    found["counts"]["core"]["passed"] -= 1
    path.write_text(f"{json.dumps(header)}\n{json.dumps(footer)}\n")

    done = call(root, "--check")
    assert done.returncode == 1
    assert "(ST-2): run the suite again" in done.stderr


def test_a_readme_without_markers_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "README.md").write_text("# shop\n")
    done = call(root, "--take", results(tmp_path / "out", "redis"))

    assert done.returncode == 1
    assert "needs the lines" in done.stderr


def test_without_evidence_there_is_no_matrix(root: Path) -> None:
    done = call(root, "--write")

    assert done.returncode == 1
    assert "nothing is kept in 1.0" in done.stderr
