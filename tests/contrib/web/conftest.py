"""Apps whose results a page shows, on real services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot import App

SERVICES = ["sqlite", "redis", "mongodb", "postgresql"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app on SQLite, without tasks."""
    with App("jobs", broker=f"sqlite:///{tmp_path}/queue.db") as made:
        yield made


@pytest.fixture
def app_on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], App]]:
    """Makes an app whose results are in a service, of which it gets the name."""
    made: list[App] = []

    def make(service: str) -> App:
        url = f"sqlite:///{tmp_path}/results.db"
        if service != "sqlite":
            url = request.getfixturevalue(f"{service}_server").url
        made.append(
            App(
                "jobs",
                broker=f"sqlite:///{tmp_path}/queue.db",
                backend=url,
                namespace=f"web{os.urandom(4).hex()}",
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()
