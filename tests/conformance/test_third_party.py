"""A backend by somebody else: installed, found by its scheme, tested from outside this project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .running import HERE, SUITE, install, run_suite


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a stranger's distribution was built and installed into."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "third_party", source, dirs_exist_ok=True)
    install(source, site)
    return site


def test_a_stranger_s_backend_is_found_by_scheme_and_conforms(
    installed: Path, tmp_path: Path
) -> None:
    groups = ("--clause=ID", "--clause=ST", "--clause=RD", "--clause=RL")  # others are certified

    outcome = run_suite(
        tmp_path, *SUITE, *groups, f"--backend=folder://{tmp_path}/results", path=[installed]
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "conformance: folder (upshot-folder 0.7) at folder://" in outcome.text
    # It has no private service, so nobody can tell whose connections the service has.
    assert "unavailable: RL-5" in outcome.text
    assert "verdict: partial: " in outcome.text


def test_a_harness_that_can_start_a_service_needs_no_url(installed: Path, tmp_path: Path) -> None:
    outcome = run_suite(
        tmp_path, *SUITE, "--backend=folder", "--clause=RL-5", "--clause=ID", path=[installed]
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "unavailable" not in outcome.text


def test_without_a_harness_the_verdict_is_partial_at_best(installed: Path, tmp_path: Path) -> None:
    outcome = run_suite(
        tmp_path,
        *SUITE,
        f"--backend=bare-folder://{tmp_path}/results",
        "--clause=ID",
        path=[installed],
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "unavailable: ID-4 (nobody wrote a harness for bare-folder:// URLs)" in outcome.text
    assert "verdict: partial" in outcome.text


def test_a_missing_driver_is_one_message(installed: Path, tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=driverless://", path=[installed])

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "'a_driver_that_nobody_has', which is not installed" in outcome.text
    assert "Traceback" not in outcome.text
