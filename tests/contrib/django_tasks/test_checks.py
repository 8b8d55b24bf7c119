"""What `manage.py check` finds wrong with TASKS, and that Django's admin shows results once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.test import RequestFactory, override_settings

from tests.contrib.django_tasks.project import BACKEND, IN_MEMORY, TASKS
from tests.contrib.django_tasks.untyped import task_backends, tasks


def found(**written: Any) -> list[str]:
    """Return what the checks of upshot say about these entries in TASKS."""
    with override_settings(TASKS=written):
        said = run_checks()
    return [f"{each.id}: {each.msg}" for each in said if (each.id or "").startswith("upshot.")]


def alias(*queues: Any, **options: Any) -> dict[str, Any]:
    """Return an entry of TASKS."""
    return {"BACKEND": BACKEND, "OPTIONS": options, "QUEUES": list(queues)}


def test_nothing_is_wrong_with_this_project() -> None:
    assert found(**TASKS) == []


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (
            alias(brokr="memory://"),
            r"upshot.E001: settings.TASKS\['default'\]\['OPTIONS'\]: .*'brokr'.*broker_url",
        ),
        (
            alias(broker="nowhere://"),
            r"upshot.E001: settings.TASKS\['default'\]: no broker serves nowhere://",
        ),
        (
            alias(**{**IN_MEMORY, "backend": "nowhere://"}),
            r"upshot.E001: settings.TASKS\['default'\]: no .*backend serves nowhere://",
        ),
        (
            alias("a", "b\nc", **{**IN_MEMORY, "namespace": "x"}),
            r"upshot.E005: settings.TASKS\['default'\]\['QUEUES'\] has 'b\\nc'",
        ),
        (
            alias("a", 5, **{**IN_MEMORY, "namespace": "x"}),
            r"upshot.E005: settings.TASKS\['default'\]\['QUEUES'\] has 5",
        ),
        (
            {**alias(**{**IN_MEMORY, "namespace": "x"}), "QUEUES": "mail"},
            r"upshot.E005: settings.TASKS\['default'\]\['QUEUES'\] is a list .*'mail' is text",
        ),
        (
            {**alias(), "OPTIONS": ["broker"]},
            r"upshot.E001: settings.TASKS\['default'\]\['OPTIONS'\]: it is a mapping, not list",
        ),
        (
            alias(broker="memory://", backend="django-db://?using=nowhere"),
            r"upshot.E001: .*DATABASES has no 'nowhere'",
        ),
    ],
)
def test_a_check_finds_what_is_wrong_with_an_alias(written: Any, says: str) -> None:
    (said,) = found(default=written)

    assert re.match(says, said), said


def test_a_wrong_option_is_an_error_when_something_is_enqueued() -> None:
    with (
        override_settings(TASKS={"default": alias(brokr="memory://")}),
        pytest.raises(ImproperlyConfigured, match=r"TASKS\['default'\]\['OPTIONS'\]: .*'brokr'"),
    ):
        tasks.nothing.enqueue()


@override_settings(UPSHOT={"backend": "memory://"})
def test_a_check_finds_that_no_broker_is_named() -> None:
    said = found(default=alias(namespace="x", worker_threads=3))

    assert any(each.startswith("upshot.W002: settings.TASKS['default'] names no") for each in said)


@override_settings(UPSHOT={})
def test_an_app_of_the_project_that_nothing_is_sent_to_is_not_looked_at() -> None:
    assert found(default=alias(**IN_MEMORY, namespace="x")) == []
    assert any(each.startswith("upshot.W002: settings.UPSHOT") for each in found(default=alias()))


def test_a_check_finds_that_the_app_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_installed(name: str) -> bool:
        return name != "upshot_contrib.django"

    monkeypatch.setattr(apps, "is_installed", is_installed)

    (said,) = found(default=alias(**IN_MEMORY))

    assert said.startswith("upshot.E006: settings.TASKS['default'] needs 'upshot_contrib.django'")


def test_a_check_finds_two_aliases_that_would_take_each_others_messages() -> None:
    one = alias("a", "b", broker="memory://", backend="memory://")
    other = alias("b", "c", broker="memory://", backend="memory://other")

    said = found(default=one, other=other)

    assert [each[: each.index(" on one")] for each in said] == [
        "upshot.E007: settings.TASKS['default'] and other have queues of one name",
        "upshot.E007: settings.TASKS['other'] and default have queues of one name",
    ]
    other["OPTIONS"]["namespace"] = "other"
    assert found(default=one, other=other) == []


# -- the environment, and the project's settings -------------------------------------------------


@override_settings(UPSHOT={"broker": "memory://", "namespace": "of the project"})
def test_the_project_gives_what_options_do_not() -> None:
    with override_settings(TASKS={"default": alias(backend="memory://results")}):
        app = task_backends["default"].app

    assert str(app.broker_url) == "memory://"
    assert str(app.backend_url) == "memory://results"
    assert app.settings.namespace == "of the project"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "memory://elsewhere")
    with override_settings(TASKS={"default": alias(broker="memory://", backend="memory://")}):
        assert str(task_backends["default"].app.backend_url) == "memory://elsewhere"


# -- the admin -----------------------------------------------------------------------------------


@pytest.fixture
def tables() -> Iterator[None]:
    """The table of results, and no connection left."""
    call_command("migrate", verbosity=0)
    yield
    connections.close_all()


def test_the_admin_shows_a_result_once_and_forgets_all_of_it(
    tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.contrib.admin import site

    from upshot_contrib.django import admin
    from upshot_contrib.django.models import Result

    options = {"broker": "memory://", "backend": "django-db://", "namespace": "admin"}
    with override_settings(TASKS={"default": alias(**options)}):
        app = task_backends["default"].app
        monkeypatch.setattr(admin, "_app", lambda: app)
        monkeypatch.setattr(admin.ResultAdmin, "message_user", Mock())
        with app:
            result = tasks.add.enqueue(1, 2)
            page = admin.ResultAdmin(Result, site)
            request = RequestFactory().get("/")
            shown = page.get_queryset(request)

            assert list(shown.values_list("task_id", flat=True)) == [result.id]
            assert Result.objects.count() == 2
            page.forget(request, shown)
            assert Result.objects.count() == 0
