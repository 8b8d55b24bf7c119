"""`upshot doctor` in a Django project: its database, and the table that `migrate` makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from tests.contrib.django.project import sqlite
from upshot.diagnosis import Examination, examine, roles_of
from upshot.finding import Level
from upshot.url import Url
from upshot_contrib.django.models import Result


def look(url: str) -> Examination:
    parsed = Url.parse(url)
    return examine(parsed, roles=roles_of(parsed), namespace="upshot", timeout=5.0)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[str]:
    """The alias of a database that nobody has migrated."""
    everything = {**connections.settings, "bare": sqlite(tmp_path / "bare.sqlite3")}
    connections.settings.update(connections.configure_settings(everything))
    yield "bare"
    connections["bare"].close()
    del connections["bare"], connections.settings["bare"]


def test_the_projects_database_is_named_and_keeps_nothing(tables: None) -> None:
    before = Result.objects.count()
    found = look("django-db://")

    assert found.roles == ("result backend",)
    assert found.worst == Level.NOTE
    assert found.findings[0].what.startswith("SQLite 3.")
    assert "the database 'default'" in found.findings[0].what
    assert any("it wakes nobody" in sentence for sentence in found.will_not)
    assert Result.objects.count() == before


def test_a_table_that_is_missing_is_to_be_migrated(bare: str) -> None:
    found = look(f"django-db://?using={bare}")

    (problem,) = (each for each in found.findings if each.level == Level.PROBLEM)
    assert "no such table" in problem.what
    assert problem.change == "python manage.py migrate upshot --database=bare"
