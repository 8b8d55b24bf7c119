"""The suite is tested by broken backends: the clause that each one breaks must go red."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from upshot_conformance.clauses import CLAUSES

from . import core_mutants, mutants  # noqa: TID251 - this folder, no source root
from .running import SUITE, Outcome, register, run_suite  # noqa: TID251 - as above

BACKENDS = [each for each in mutants.backends() if each.kills]
CONTROLS = [each for each in mutants.backends() if not each.kills]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose distribution offers every mutant as a URL scheme."""
    folder = tmp_path_factory.mktemp("mutants")
    entries = {each.__name__.lower(): f"mutants:{each.__name__}" for each in mutants.backends()}
    register(folder, "upshot.backends", entries, name="mutants")
    return folder


def assert_killed(outcome: Outcome, clause_id: str) -> None:
    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert f"broken clause {clause_id}: {CLAUSES[clause_id].text}" in outcome.text, outcome.text
    assert re.search(rf"^failed: .*\b{clause_id}\b", outcome.text, re.MULTILINE), outcome.text


@pytest.mark.parametrize("mutant", BACKENDS, ids=lambda mutant: mutant.__name__)
def test_the_clause_that_a_broken_backend_breaks_goes_red(
    mutant: type[mutants.Mutant], registered: Path, tmp_path: Path
) -> None:
    outcome = run_suite(
        tmp_path,
        *SUITE,
        f"--backend={mutant.__name__.lower()}://",
        f"--clause={mutant.kills}",
        "-x",
        path=[registered],
    )

    assert_killed(outcome, mutant.kills)


@pytest.mark.parametrize("name", core_mutants.MUTANTS)
def test_the_clause_that_a_broken_core_breaks_goes_red(name: str, tmp_path: Path) -> None:
    clause_id, _ = core_mutants.MUTANTS[name]

    outcome = run_suite(
        tmp_path,
        *SUITE,
        "--backend=memory",
        f"--clause={clause_id}",
        "-x",
        plugins=["core_mutants"],
        environment={"UPSHOT_MUTANT": name},
    )

    assert_killed(outcome, clause_id)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.__name__)
def test_a_backend_that_is_only_odd_stays_green(
    control: type[mutants.Mutant], registered: Path, tmp_path: Path
) -> None:
    groups = [f"--clause={group}" for group in ("ID", "ST", "RD-1", "RD-5", "RL-2", "RL-3", "RL-5")]

    outcome = run_suite(
        tmp_path, *SUITE, f"--backend={control.__name__.lower()}://", *groups, path=[registered]
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text


def test_what_works_undeclared_is_reported_and_not_red(registered: Path, tmp_path: Path) -> None:
    outcome = run_suite(
        tmp_path,
        *SUITE,
        "--backend=modest://",
        *("--clause=ST-1", "--clause=RD-1", "--clause=ST-5"),
        path=[registered],
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "works although undeclared: RD-1 ST-1" in outcome.text
    assert "not applicable: ST-5 (intermediate is not declared)" in outcome.text


def test_every_tested_clause_is_killed_by_some_mutant() -> None:
    killed = {each.kills for each in BACKENDS}
    killed |= {clause_id for clause_id, _ in core_mutants.MUTANTS.values()}

    assert killed == {clause_id for clause_id, clause in CLAUSES.items() if clause.tested}
