"""Every service of this project passes the whole suite, on a real server started for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upshot import registry
from upshot_conformance.harness import HARNESSES

from .running import HERE, SUITE, SUITE_SECONDS, run_suite

SERVICES = [
    "django-db",
    "django-db-postgresql",
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


@pytest.mark.apart
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.timeout(SUITE_SECONDS + 60)
def test_a_service_is_conformant(service: str, tmp_path: Path) -> None:
    services = os.environ.get("UPSHOT_SERVICES_DIR") or str(HERE.parents[1] / ".services")

    # From a folder that is not this repository.
    outcome = run_suite(
        tmp_path,
        *SUITE,
        f"--backend={service}",
        environment={"UPSHOT_SERVICES_DIR": services},
        timeout=SUITE_SECONDS,
    )

    print(outcome.text)
    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "verdict: conformant" in outcome.text, outcome.text


def test_no_harness_of_this_project_is_left_out() -> None:
    offers = [each for each in registry.offers(HARNESSES) if each.distribution == "upshot"]
    tested = {each.entry_point.value for each in offers if each.name in SERVICES}

    assert tested == {each.entry_point.value for each in offers}
