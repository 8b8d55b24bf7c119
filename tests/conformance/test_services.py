"""Every service of this project passes the whole suite, on a real server started for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upshot import registry
from upshot_conformance.selection import HARNESSES

from .running import SUITE, run_suite  # noqa: TID251 - this folder, no source root

SERVICES = [
    "mariadb",
    "memcached",
    "memory",
    "mongo",
    "mongo-standalone",
    "postgresql",
    "redis",
    "redis-cluster",
    "redis-sentinel",
    "rpc",
    "sqlite",
]
"""What `--backend` takes: a URL scheme or the name of a harness; one for each kind of service."""


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.timeout(960)
def test_a_service_is_conformant(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "UPSHOT_SERVICES_DIR" not in os.environ:  # the suite runs elsewhere, and looks for it there
        monkeypatch.setenv("UPSHOT_SERVICES_DIR", str(Path.cwd() / ".services"))

    outcome = run_suite(tmp_path, *SUITE, f"--backend={service}", timeout=900)

    print(outcome.text)
    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "verdict: conformant" in outcome.text, outcome.text


def test_no_harness_of_this_project_is_left_out() -> None:
    offers = [each for each in registry.offers(HARNESSES) if each.distribution == "upshot"]
    tested = {each.entry_point.value for each in offers if each.name in SERVICES}

    assert tested == {each.entry_point.value for each in offers}
