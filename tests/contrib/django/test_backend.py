"""Results in Django's databases: what is Django's own, and the conformance suite does not ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core import signals
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.test import override_settings

from tests.contrib.django.project import opened
from upshot import clock
from upshot.client import ResultClient
from upshot.errors import (
    ConfigError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UrlError,
)
from upshot_conformance.records import new_id, success
from upshot_conformance.servers import PostgreSQLServer
from upshot_contrib.django.models import Result


class UndoneError(Exception):
    """Ends a transaction."""


@pytest.fixture
def open_connections() -> Iterator[list[Any]]:
    """The connections that Django has opened since, and that are still open."""
    found: list[Any] = []

    def note(connection: Any, **_: Any) -> None:
        found.append(connection)

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


@pytest.fixture
def postgresql(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """The alias of a database on a real server."""
    place = urlsplit(postgresql_server.url)
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.path[1:],
        "USER": place.username,
        "PASSWORD": place.password,
        "HOST": place.hostname,
        "PORT": place.port,
    }
    everything = {**connections.settings, "server": entry}
    connections.settings.update(connections.configure_settings(everything))
    call_command("migrate", "upshot", database="server", verbosity=0)
    yield "server"
    connections["server"].close()
    del connections["server"], connections.settings["server"]


# -- transactions --------------------------------------------------------------------------------


def test_what_is_stored_in_a_transaction_that_is_undone_is_not_lost(
    client: ResultClient, postgresql: str
) -> None:
    task_id = new_id()

    with opened("django-db://?using=server") as results:
        with contextlib.suppress(UndoneError), transaction.atomic(using=postgresql):
            Result.objects.using(postgresql).filter(key="none").update(name="locks nothing")
            assert results.store(success(task_id, 7))
            raise UndoneError

        assert results.load(task_id) is not None


def test_a_transaction_of_sqlite_that_has_not_written_yet_is_in_nobodys_way(
    client: ResultClient,
) -> None:
    task_id = new_id()

    with contextlib.suppress(UndoneError), transaction.atomic():
        assert Result.objects.count() == 0
        assert client.store(success(task_id, 7))
        raise UndoneError

    assert client.load(task_id) is not None


def test_who_writes_to_sqlite_and_sends_in_one_transaction_is_told_what_to_do(
    client: ResultClient,
) -> None:
    with opened("django-db://", timeout=0.5) as results, transaction.atomic():
        Result.objects.create(key="x", barrier=0, stored_at=0.0, body=b"")  # takes the write lock
        began = clock.monotonic()

        with pytest.raises(ServiceUnavailableError, match=r"transaction\.on_commit"):
            results.store(success(new_id(), 7))

        assert clock.monotonic() - began < 3.0
        transaction.set_rollback(True)


def test_the_program_sees_no_transaction_of_ours(client: ResultClient) -> None:
    client.store_many([success(new_id(), n) for n in range(3)])

    assert not connection.in_atomic_block
    assert connection.connection is None, "it was not even opened"


# -- which database ------------------------------------------------------------------------------


def test_the_alias_says_which_database(client: ResultClient) -> None:
    task_id = new_id()
    with opened("django-db://?using=other") as other:
        other.store(success(task_id, 7))

        assert client.load(task_id) is None
        assert Result.objects.using("other").filter(task_id=task_id).exists()
        other.forget([task_id])


def test_an_alias_that_is_unknown_is_an_error_that_names_the_known_ones(tables: None) -> None:
    with opened("django-db://?using=nowhere") as results, pytest.raises(ConfigError) as raised:
        results.load(new_id())

    assert "DATABASES has no 'nowhere'; it has default, other" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "django-db://?alias=default",
        "django-db:///default",
        "django-db://user:secret@host",
        "django-db://one,two",
        "django-db://?upshot_table_prefix=x_",
    ],
)
def test_a_url_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UrlError) as raised:
        opened(text)

    assert "secret" not in str(raised.value)


def test_a_table_that_is_missing_is_an_error_that_says_what_to_run(client: ResultClient) -> None:
    with connections["other"].schema_editor() as editor:
        editor.delete_model(Result)
    try:
        with (
            opened("django-db://?using=other") as results,
            pytest.raises(ServiceRejectedError, match="migrate upshot --database=other"),
        ):
            results.load(new_id())
    finally:
        with connections["other"].schema_editor() as editor:
            editor.create_model(Result)


def test_without_a_project_the_error_says_what_to_set() -> None:
    program = """
        from upshot import App
        app = App(broker="memory://", backend="django-db://")
        app.AsyncResult("x").state
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(map(str.strip, program.splitlines()))],
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "DJANGO_SETTINGS_MODULE=shop.settings" in done.stderr.splitlines()[-1]


# -- Django's connections ------------------------------------------------------------------------


def test_an_event_loop_may_run_where_a_result_is_stored(client: ResultClient) -> None:
    async def store() -> bool:
        return client.store(success(new_id(), 7))

    assert asyncio.run(store())


def test_connections_are_closed_at_the_end_of_a_request(
    client: ResultClient, open_connections: list[Any]
) -> None:
    client.load(new_id())
    (ours,) = open_connections
    assert ours.connection is not None

    signals.request_finished.send(sender=None)

    assert ours.connection is None
    assert client.load(new_id()) is None


def test_one_connection_serves_one_call_after_the_other(
    client: ResultClient, open_connections: list[Any]
) -> None:
    for _ in range(5):
        client.load(new_id())

    assert len(open_connections) == 1


def test_an_old_connection_is_not_used_again(
    tables: None, open_connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0.01)
    with opened("django-db://") as results:
        for _ in range(2):
            results.load(new_id())
            clock.sleep(0.02)
        results.load(new_id())

    assert len(open_connections) > 1
    assert {each.connection for each in open_connections} == {None}


def test_closing_gives_every_connection_back(tables: None, open_connections: list[Any]) -> None:
    results = opened("django-db://")
    results.load(new_id())
    results.close()

    assert [each.connection for each in open_connections] == [None]


def test_a_server_that_cannot_be_reached_is_an_error_of_ours(
    tables: None, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        opened("django-db://127.0.0.1:1?using=server", timeout=0.5) as results,
        pytest.raises(ServiceUnavailableError, match="cannot be reached") as raised,
    ):
        results.load(new_id())

    assert isinstance(raised.value.__cause__, OperationalError)


def test_a_pool_of_the_project_is_not_drawn_from(
    tables: None, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["server"], "OPTIONS", {"pool": {"max_size": 1}})
    with opened("django-db://?using=server") as results:
        assert results.load(new_id()) is None  # with the pool, psycopg_pool would be missing


def test_a_database_that_tests_have_used_can_be_removed(tables: None, postgresql: str) -> None:
    creation: Any = connections[postgresql].creation
    usual = connections[postgresql].settings_dict["NAME"]
    creation.create_test_db(verbosity=0, autoclobber=True)
    with opened("django-db://?using=server") as results:
        assert results.load(new_id()) is None

        creation.destroy_test_db(usual, verbosity=0)

        assert results.load(new_id()) is None, "it is the usual database from now on"


@override_settings(DEBUG=True)
def test_bodies_are_not_kept_for_debugging(
    client: ResultClient, open_connections: list[Any]
) -> None:
    client.store(success(new_id(), "a long value"))

    (ours,) = open_connections
    assert not any("INSERT" in each["sql"] for each in ours.queries)


def test_the_settings_of_the_project_are_left_as_they_are(tables: None, postgresql: str) -> None:
    with opened("django-db://?using=server") as results:
        results.load(new_id())

    assert connections.settings["server"]["OPTIONS"] == {}
