"""Every service of this project passes the whole suite, on a real server started for it.

These runs take longest, and wait most of the time: `conftest.py` lets them begin early, beside the
other tests, and has their tests come last.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from upshot import registry
from upshot_conformance.harness import HARNESSES

from .running import SUITE_SECONDS, Outcome

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


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.timeout(len(SERVICES) * SUITE_SECONDS)
def test_a_service_is_conformant(service: str, outcomes: Mapping[str, Future[Outcome]]) -> None:
    outcome = outcomes[service].result()

    print(outcome.text)
    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "verdict: conformant" in outcome.text, outcome.text


def test_no_harness_of_this_project_is_left_out() -> None:
    offers = [each for each in registry.offers(HARNESSES) if each.distribution == "upshot"]
    tested = {each.entry_point.value for each in offers if each.name in SERVICES}

    assert tested == {each.entry_point.value for each in offers}
