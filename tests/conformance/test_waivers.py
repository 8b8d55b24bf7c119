"""Waivers: what is known to fail may fail in exactly that way, and nothing else passes with it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Standing
from upshot_conformance.waivers import Waiver, WaiverError, Waivers

from .mutants import judge
from .mutants.over import MUTANT
from .running import SUITE, Outcome, run_suite

TODAY = datetime.date(2026, 6, 1)
WHOLE: dict[str, Any] = {
    "clause": '"ST-3"',
    "kind": '"bug"',
    "reason": '"the last one wins"',
    "issue": '"https://example.org/1"',
    "message": '"AssertionError: "',
    "expires": "2099-01-01",
}


def text(**changed: str | None) -> str:
    rows = {**WHOLE, **changed}
    return "[[waiver]]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items() if v is not None)


def read(folder: Path, content: str) -> Waivers:
    path = folder / "known.toml"
    path.write_text(content)
    return Waivers.read(path, today=TODAY)


def test_a_waiver_covers_the_failures_that_begin_as_it_says(tmp_path: Path) -> None:
    waivers = read(tmp_path, text(message='"ValueError: no"'))
    waiver = waivers.covering(["ID-1", "ST-3"])

    assert waiver is not None
    assert waiver.matches(ValueError("no such thing"))
    assert not waiver.matches(ValueError("yes"))
    assert not waiver.matches(TypeError("no such thing"))
    assert waivers.covering(["ID-1"]) is None
    assert len(waivers.digest) == 64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (text(clause='"ST-99"'), "is for 'ST-99', which is no clause"),
        (text(kind='"flaky"'), "has the kind 'flaky'; it must be one of bug, unsupported"),
        (text(issue=None), "lacks issue"),
        (text(message='""'), "needs a text, or a list of texts, as message"),
        (text(message="[]"), "needs a text, or a list of texts, as message"),
        (text(message='["a", 1]'), "needs a text, or a list of texts, as message"),
        (text(reason="1"), "needs a text as reason"),
        (text(expires='"2099-01-01"'), "needs a date as expires"),
        (text(expires="2026-05-31"), "for ST-3 expired on 2026-05-31"),
        (text() + "more = 1\n", "has the unknown key more"),
        (text() + text(), "waiver 2 is a second one for ST-3"),
        ("waiver = 3\n", "nothing but tables called [[waiver]]"),
        ("waiver = [1]\n", "waiver 1 is no table"),
        ("[[wavier]]\nclause = 1\n", "nothing but tables called [[waiver]]"),
        ("[[waiver]\n", "cannot be read as TOML"),
        ("\x00", "cannot be read as TOML"),
    ],
)
def test_a_file_that_says_anything_else_is_refused(
    tmp_path: Path, content: str, complaint: str
) -> None:
    with pytest.raises(WaiverError) as caught:
        read(tmp_path, content)

    assert complaint in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match="cannot be read"):
        Waivers.read(tmp_path / "none.toml", today=TODAY)


@pytest.mark.parametrize("standing", list(Standing))
def test_a_waiver_that_was_not_needed_is_complained_of(standing: Standing) -> None:
    waiver = Waiver("ST-3", "bug", "why", "where", ("AssertionError",), TODAY)
    standings = dict.fromkeys(CLAUSES, Standing.PASSED) | {"ST-3": standing}

    complaints = list(Waivers([waiver]).complaints(standings, ["ST-3"]))

    needed = standing in (Standing.WAIVED, Standing.FAILED)
    assert [clause_id for clause_id, _ in complaints] == ([] if needed else ["ST-3"])
    assert list(Waivers([waiver]).complaints(standings, ["ST-2"])) == []


def run_waived(folder: Path, content: str, mutant: str, *arguments: str) -> Outcome:
    path = folder / "known.toml"
    path.write_text(content)
    return judge.run(
        "--backend=mutant+memory",
        f"--known-failures={path}",
        *arguments,
        environment={MUTANT: mutant},
        timeout=judge.SECONDS,
    )


LAST_WINS = "states:LastTerminalWins"
GREEN = "controls:Slow"


def test_a_known_failure_is_shown_and_not_red(tmp_path: Path) -> None:
    both = text(message='["AssertionError: ", "Failed: ST-3 "]')

    outcome = run_waived(tmp_path, both, LAST_WINS, "--clause=ST-3", "--clause=ID-3")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "waived: ST-3 (ST-3, bug: the last one wins (https://example.org/1))" in outcome.text
    assert "verdict: partial: 1 clause is broken and waived" in outcome.text


def test_a_failure_with_another_message_is_red(tmp_path: Path) -> None:
    outcome = run_waived(tmp_path, text(message='"KeyError: "'), LAST_WINS, "--clause=ST-3", "-x")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "its waiver is for failures that begin with 'KeyError: '" in outcome.text
    assert "verdict: non-conformant" in outcome.text


def test_a_failure_of_another_clause_is_red(tmp_path: Path) -> None:
    outcome = run_waived(tmp_path, text(clause='"ST-2"'), LAST_WINS, "--clause=ST-3", "-x")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "broken clause ST-3" in outcome.text


def test_a_waiver_of_what_passes_is_red(tmp_path: Path) -> None:
    outcome = run_waived(tmp_path, text(), GREEN, "--clause=ST-3")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "waiver: ST-3 is waived and passes: remove its waiver" in outcome.text
    assert "verdict: non-conformant: 1 of the waivers do not say what is so" in outcome.text


def test_a_waiver_of_what_was_skipped_is_red(tmp_path: Path) -> None:
    outcome = run_waived(tmp_path, text(clause='"ST-1"'), GREEN, "-k", "first_terminal")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "waiver: ST-1 is waived, and was not tested (not run)" in outcome.text


def test_a_bad_file_stops_the_run_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(text(kind='"flaky"'))

    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", "--known-failures=known.toml")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "--known-failures: known.toml: waiver 1 has the kind 'flaky'" in outcome.text
    assert "Traceback" not in outcome.text
