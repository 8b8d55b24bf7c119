"""The backends under `examples/backends` are installed and certified, as their authors see it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .running import HERE, SUITE, install, run_suite

EXAMPLES = HERE.parents[1] / "examples" / "backends"
SCHEMES = {"files": "files", "dbm": "dbm", "socket": "dict"}
"""Each example's folder, and its URL scheme."""


def test_no_example_is_left_out() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == SCHEMES.keys()


# The page for authors, which test_docs.py follows, has `files` certified.
@pytest.mark.apart
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("folder", "scheme"), [("dbm", "dbm"), ("socket", "dict")])
def test_an_example_is_installed_and_certified(folder: str, scheme: str, tmp_path: Path) -> None:
    source, site, outside = tmp_path / "source", tmp_path / "site", tmp_path / "outside"
    shutil.copytree(EXAMPLES / folder, source, ignore=shutil.ignore_patterns("__pycache__"))
    outside.mkdir()
    install(source, site)

    own = run_suite(source, "tests", path=[site])
    outcome = run_suite(
        outside, *SUITE, f"--backend={scheme}", "--certify", path=[site], timeout=800
    )

    assert own.code == pytest.ExitCode.OK, own.text
    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "verdict: conformant" in outcome.text
    assert "certified" in outcome.text
