"""A project with its tables made, and results in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contrib.django import project
from upshot.client import ResultClient

project.set_up()  # before the tests are imported, which import models


@pytest.fixture(scope="session")
def tables() -> None:
    """The tables of every installed app, in both databases."""
    from django.core.management import call_command
    from django.db import connections

    for alias in ("default", "other"):
        call_command("migrate", database=alias, verbosity=0)
    connections.close_all()


@pytest.fixture
def client(tables: None) -> Iterator[ResultClient]:
    """Results in the default database, of which none are left."""
    from django.db import connections

    from upshot_contrib.django.models import Result

    with project.opened("django-db://") as client:
        yield client
    Result.objects.all().delete()
    connections.close_all()
