"""Lets the longest runs of the suite go on beside the other tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .running import SUITE, SUITE_SECONDS, Outcome, run_suite

_AWAITED = "test_a_service_is_conformant"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests that only wait for a run come last."""
    items.sort(key=_is_awaited)


def _is_awaited(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == _AWAITED


def _service(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return str(item.callspec.params["service"])


def _run(service: str, folder: Path, environment: Mapping[str, str]) -> Outcome:
    """Run the suite on a service, from a folder that is not this repository."""
    return run_suite(
        folder, *SUITE, f"--backend={service}", inherit=environment, timeout=SUITE_SECONDS
    )


@pytest.fixture(scope="session", autouse=True)
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Outcome]]]:
    """How the suite ends on each service whose test was asked for; one after the other, from now
    on.
    """
    # Other tests change the environment and the folder of this process meanwhile.
    environment = {"UPSHOT_SERVICES_DIR": str(Path.cwd() / ".services"), **os.environ}
    asked = [_service(item) for item in request.session.items if _is_awaited(item)]
    folders = {service: tmp_path_factory.mktemp(service) for service in asked}
    with ThreadPoolExecutor(1) as pool:
        yield {name: pool.submit(_run, name, path, environment) for name, path in folders.items()}
        pool.shutdown(cancel_futures=True)
