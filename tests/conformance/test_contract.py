"""The document of the contract says what the suite does, and hides nothing that is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import CONTRACT, GROUPS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "conformance" / "CONTRACT.md").read_text(encoding="utf-8")


def test_the_document_is_what_the_suite_and_the_mutants_are_now() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.contract", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_every_clause_is_printed_once_with_its_sentence_and_its_reason() -> None:
    for clause in CLAUSES.values():
        assert DOCUMENT.count(f"**{clause.id}** (") == 1
        assert clause.text in DOCUMENT
        assert clause.why in DOCUMENT
        assert clause.group in GROUPS


def test_every_clause_has_a_test_and_a_mutant() -> None:
    assert "\nWithout a test: none.\nWithout a mutant: none.\n" in DOCUMENT


def test_the_document_is_of_the_version_that_is_tested() -> None:
    assert DOCUMENT.startswith(f"# The contract of a result backend, version {CONTRACT}\n")
    assert f"\n- **{CONTRACT}**: " in DOCUMENT
