"""Django 6 with workers in this process. With an older Django, another environment is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import django
import pytest

IS_DJANGO_6 = django.VERSION >= (6,)
HERE = Path(__file__).parent

# In the project's own environment, one file runs all others in the environment of Django 6.
collect_ignore = [
    str(each)
    for each in HERE.glob("test_*.py")
    if (each.name == "test_environment.py") is IS_DJANGO_6
]

if IS_DJANGO_6:
    from tests.contrib.django_tasks import project

    project.set_up()  # before the tests are imported, which import tasks


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """A worker for every alias that is ours; to start and stop them takes a second."""
    from tests.contrib.django_tasks.untyped import task_backends

    with (
        task_backends["default"].app.running(queues=["default", "mail"]),
        task_backends["anywhere"].app.running(queues=["default", "any"]),
        task_backends["shared"].app.running(queues=["shared"]),
    ):
        yield


@pytest.fixture
def worker(workers: None) -> Iterator[None]:
    """Workers, with the tasks closed that wait until they are opened."""
    from tests.contrib.django_tasks.untyped import tasks

    tasks.OPEN.clear()
    yield
    tasks.OPEN.set()
