"""What a project sets, and what Django finds of it: the app, checks, routers, commands, tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command, get_commands
from django.db import connections, router
from django.test import override_settings

from tests.contrib.django.project import NAMESPACE
from upshot.client import ResultClient
from upshot_conformance.records import new_id, success
from upshot_contrib.django.app import app
from upshot_contrib.django.models import Result
from upshot_contrib.django.settings import make_app

BROKER = {"broker": "memory://"}
APP = ("-A", "upshot_contrib.django.app")


def found(**options: Any) -> list[str]:
    """Return what the checks of upshot say."""
    said = run_checks(**options)
    return [f"{each.id}: {each.msg}" for each in said if (each.id or "").startswith("upshot.")]


# -- settings ------------------------------------------------------------------------------------


def test_the_app_is_as_the_settings_say() -> None:
    assert app.settings.namespace == NAMESPACE
    assert str(app.broker_url) == "memory://"
    assert str(app.backend_url) == "django-db://"


@override_settings(UPSHOT={"broker": "memory://", "result_backend": "memory://"})
def test_short_and_long_names_are_the_same() -> None:
    assert str(make_app().backend_url) == "memory://"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSHOT_NAMESPACE", "elsewhere")

    assert make_app().settings.namespace == "elsewhere"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"brokr": "memory://"}, "there is no setting 'brokr'.*broker_url"),
        ({"broker": "memory://", "broker_url": "memory://"}, "broker_url is given twice"),
        ({"worker_threads": "many"}, "worker_threads"),
        ("memory://", "it is a mapping, not str"),
        ({1: "memory://"}, "its keys are names, and 1 is none"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_the_setting(written: Any, says: str) -> None:
    with (
        override_settings(UPSHOT=written),
        pytest.raises(ImproperlyConfigured, match=rf"settings\.UPSHOT: .*{says}"),
    ):
        make_app()


# -- checks --------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_this_project(tables: None) -> None:
    assert found(databases=["default", "other"]) == []


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({**BROKER, "brokr": 1}, "upshot.E001: settings.UPSHOT: mapping: there is no setting"),
        ({"broker": "nowhere://"}, "upshot.E001: no broker serves nowhere://"),
        ({**BROKER, "backend": "django-db://?using=x"}, "upshot.E001: .*DATABASES has no 'x'"),
        ({**BROKER, "backend": "django-db://?usng=other"}, "upshot.E001: .*no 'usng'"),
        ({**BROKER, "backend": "django-db://other"}, "upshot.E001: .*write \\?using=other"),
        ({}, "upshot.W002: settings.UPSHOT names no broker"),
    ],
)
def test_a_check_finds_what_is_wrong_with_the_settings(written: Any, says: str) -> None:
    with override_settings(UPSHOT=written):
        (said,) = found()

    assert re.match(says, said), said


def test_a_check_finds_a_database_in_memory() -> None:
    settings = {**connections["default"].settings_dict, "NAME": ":memory:"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections["default"], "settings_dict", settings)
        (said,) = found()

    assert said.startswith("upshot.E003: The database 'default' is in memory")


def test_a_check_finds_a_database_that_cannot_keep_results() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections["default"], "vendor", "oracle")
        patch.setattr(connections["default"], "display_name", "Oracle")
        (said,) = found()

    assert said.startswith("upshot.E002: The database 'default' is Oracle")


def test_a_check_finds_a_table_that_is_missing(tables: None) -> None:
    with connections["default"].schema_editor() as editor:
        editor.delete_model(Result)
    try:
        assert found(databases=["default"]) == [
            "upshot.W001: The database 'default' has no table for results."
        ]
        assert found() == [], "it connects to no database unless it is told to"
    finally:
        with connections["default"].schema_editor() as editor:
            editor.create_model(Result)


class Elsewhere:
    """A router that lets no table of upshot be made."""

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        return False if app_label == "upshot" else None


def test_a_check_finds_routers_that_keep_the_table_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "routers", [Elsewhere()])

    (said,) = found()

    assert said.startswith("upshot.E004: Results go to the database 'default'")


# -- routers -------------------------------------------------------------------------------------


def test_the_router_keeps_the_table_in_the_database_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from django.contrib.auth.models import User

    from upshot_contrib.django.routers import UpshotRouter

    monkeypatch.setattr(router, "routers", [UpshotRouter()])

    with override_settings(UPSHOT={**BROKER, "backend": "django-db://?using=other"}):
        named = [router.db_for_read(Result), router.db_for_write(Result)]
        allowed = {
            (alias, model.__name__): router.allow_migrate_model(alias, model)
            for alias in ("default", "other")
            for model in (Result, User)
        }
        checked = found()

    assert named == ["other", "other"]
    assert allowed == {
        ("default", "Result"): False,
        ("other", "Result"): True,
        ("default", "User"): True,
        ("other", "User"): True,
    }
    assert checked == []
    assert router.db_for_write(Result) == "default", "nothing is named"


# -- the model and its migrations ----------------------------------------------------------------


def test_the_migrations_make_the_model_as_it_is(tables: None) -> None:
    call_command("makemigrations", "upshot", check=True, dry_run=True, verbosity=0)


# -- commands and tasks --------------------------------------------------------------------------


def test_prune_removes_what_has_expired(client: ResultClient) -> None:
    kept, gone = new_id(), new_id()
    client.store(success(kept, 1))
    client.store(success(gone, 1))
    Result.objects.filter(task_id=gone).update(expires_at=1.0)
    out = StringIO()

    call_command("upshot_prune", stdout=out)

    assert out.getvalue() == "removed: 1\n"
    assert list(Result.objects.values_list("task_id", flat=True)) == [kept]


def test_the_commands_are_found() -> None:
    mine = {name for name, owner in get_commands().items() if owner == "upshot_contrib.django"}

    assert mine == {"upshot_prune", "upshot_worker"}


SETTINGS = """
    SECRET_KEY = "x"
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
    INSTALLED_APPS = ["orders", "upshot_contrib.django"]
    UPSHOT = {"broker": "sqlite:///broker.db"}
    DEBUG = True
"""
TASKS = """
    from django.db import connection, connections

    from upshot_contrib.django.app import app


    @app.task
    def look() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return len(connection.queries)
"""


COROUTINES = """

    from asgiref.sync import sync_to_async


    def was_open() -> bool:
        found = connection.connection is not None
        connection.ensure_connection()
        return found


    @app.task
    async def use() -> bool:
        return await sync_to_async(was_open)()
"""


LOOK = "import django; django.setup(); from orders.tasks import look"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one app, which has a task."""
    for name, text in {
        "shop.py": SETTINGS,
        "orders/__init__.py": "",
        "orders/tasks.py": TASKS,
        "orders/models.py": "from orders.tasks import look\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run(tmp_path, "-m", "django", "migrate")
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_worker_runs_the_tasks_of_installed_apps_as_django_runs_requests(shop: Path) -> None:
    ids = [run(shop, "-c", f"{LOOK}; print(look.delay().id)").strip() for _ in range(2)]
    arguments = ("-m", "django", "upshot_worker", "-c", "1", "--threads", "1", "--burst")

    run(shop, *arguments)
    shown = [run(shop, "-m", "upshot", "result", *APP, task_id) for task_id in ids]

    assert all("SUCCESS" in each for each in shown)
    assert all(each.rstrip().endswith("1") for each in shown), "queries of the first were kept"


def test_connections_of_coroutines_are_those_of_one_task_too(shop: Path) -> None:
    with (shop / "orders/tasks.py").open("a") as tasks:
        tasks.write(textwrap.dedent(COROUTINES))
    program = """
        import django; django.setup()
        from orders.tasks import app, use
        with app.running(threads=1):
            print([use.delay().get(timeout=30) for _ in range(3)])
    """

    assert run(shop, "-c", textwrap.dedent(program)) == "[False, False, False]\n"


DRAINED = """
    from django.db import connection
    from django.test import TestCase

    from upshot.testing import drain, in_memory
    from upshot_contrib.django.app import app


    @app.task
    def seen() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT number FROM uncommitted")
            return cursor.fetchone()[0]


    class Drained(TestCase):
        def test_a_task_sees_what_this_has_not_committed(self):
            self.enterContext(in_memory(app))
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE uncommitted AS SELECT 42 AS number")
            answer = seen.delay()
            drain(app)
            self.assertEqual(answer.get(timeout=0), 42)
"""


def test_a_test_that_drains_runs_tasks_in_its_own_transaction(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "orders/tests.py").write_text(textwrap.dedent(DRAINED))
    monkeypatch.setenv("UPSHOT_BROKER_URL", "memory://")
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "memory://")

    run(shop, "-m", "django", "test")


def test_a_project_that_lacks_the_app_is_told_so(shop: Path) -> None:
    settings = (shop / "shop.py").read_text()
    (shop / "shop.py").write_text(settings.replace(', "upshot_contrib.django"', ""))
    program = f"{LOOK}\ntry: look.delay()\nexcept Exception as exc: print(exc)"

    assert "INSTALLED_APPS lacks 'upshot_contrib.django'" in run(shop, "-c", program)


def test_a_number_that_is_none_is_named(shop: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "django", "upshot_worker", "-c", "0"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "-c/--concurrency: it is a number of 1 or more, not '0'" in done.stderr


def test_a_worker_stops_when_it_is_told_to(shop: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "upshot_worker", "-c", "1"],
        cwd=shop,
        env=os.environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert run(shop, "-c", f"{LOOK}; print(look.delay().get(timeout=30))") == "1\n"
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_broker_that_no_worker_can_reach_is_a_mistake_that_is_named(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSHOT_BROKER_URL", "memory://")
    done = subprocess.run(
        [sys.executable, "-m", "django", "upshot_worker"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("CommandError: memory:// lives inside one process")
