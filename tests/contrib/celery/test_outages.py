"""The store is away when a task has run: nothing that it returned is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contrib.celery import jobs
from tests.contrib.celery.conftest import new_id
from tests.contrib.celery.untyped import ChordError, Context, GroupResult
from upshot.errors import ServiceUnavailableError
from upshot_conformance.servers import RedisServer

IMPATIENT = {"upshot_timeout": 0.2}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(persistent=True) as started:
        yield started


@pytest.fixture
def app(server: RedisServer) -> Iterator[Any]:
    made = jobs.make(
        "memory://",
        f"upshot+{server.url}",
        queue="q",
        result_backend_transport_options=IMPATIENT,
    )
    yield made
    made.backend.close()


def while_away(server: RedisServer, store: Callable[[], Any]) -> bool:
    """Call `store` while the server is down, and start it again; tell whether it waited."""
    server.kill()
    thread = threading.Thread(target=store)
    thread.start()
    thread.join(1)
    waited = thread.is_alive()
    server.restart()
    thread.join(30)
    return waited


def test_what_a_task_returned_waits_for_its_store(app: Any, server: RedisServer) -> None:
    task_id = new_id()

    def store() -> None:
        app.backend.mark_as_done(task_id, "kept", Context(id=task_id))

    assert while_away(server, store)
    assert app.AsyncResult(task_id).result == "kept"


def test_a_part_of_a_chord_waits_for_its_store(
    app: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def send(args: Any, *_: Any, **__: Any) -> None:
        sent.append(args)

    monkeypatch.setattr(app.jobs.total, "apply_async", send)
    group_id = new_id()
    app.backend.set_chord_size(group_id, 1)
    request = Context(id=new_id(), group=group_id, group_index=0, chord=app.jobs.total.s())

    def store() -> None:
        app.backend.on_chord_part_return(request, "SUCCESS", 7)

    assert while_away(server, store)
    assert sent == [([7],)]


@pytest.fixture
def sent(app: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of bodies that were sent."""
    found: list[Any] = []

    def send(args: Any, *_: Any, **__: Any) -> None:
        found.append(args)

    monkeypatch.setattr(app.jobs.total, "apply_async", send)
    return found


def lost_after_the_last_part(
    app: Any, server: RedisServer, request: Any, state: str, result: Any
) -> bool:
    """Return the only part of a chord, and lose the server then; tell whether that was waited for.

    The header has a group in it.
    """
    inner = GroupResult(new_id(), [app.AsyncResult(request.id)], app=app)
    app.backend.save_group(request.group, GroupResult(request.group, [inner], app=app))
    app.backend.set_chord_size(request.group, 1)
    app.backend.store_result(request.id, result, state)
    add = app.backend._chords.add

    def add_and_lose(*args: Any, **options: Any) -> Any:
        parts = add(*args, **options)
        server.kill()
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.backend._chords, "add", add_and_lose)
        thread = threading.Thread(
            target=app.backend.on_chord_part_return, args=(request, state, result)
        )
        thread.start()
        thread.join(1)
        waited = thread.is_alive()
        server.restart()
        thread.join(30)
    return waited


def test_a_chord_is_not_failed_by_a_store_that_goes_away_before_its_body_is_sent(
    app: Any, server: RedisServer, sent: list[Any]
) -> None:
    body = app.jobs.total.s()
    request = Context(id=new_id(), group=new_id(), group_index=0, chord=body)

    assert lost_after_the_last_part(app, server, request, "SUCCESS", 7)
    assert sent == [([[7]],)]


def test_a_body_fails_with_its_header_even_if_the_store_goes_away(
    app: Any, server: RedisServer, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ChordError("the header failed")

    monkeypatch.setattr(app.backend._bodies, "_joined", fail)
    body = app.jobs.total.s().set(task_id=new_id())
    request = Context(id=new_id(), group=new_id(), group_index=0, chord=body)

    assert lost_after_the_last_part(app, server, request, "FAILURE", ValueError("no"))
    assert app.AsyncResult(body.id).state == "FAILURE"
    assert sent == []


def test_who_is_not_a_task_is_told_that_the_store_is_away(app: Any, server: RedisServer) -> None:
    server.kill()

    with pytest.raises(ServiceUnavailableError):
        app.backend.mark_as_done(new_id(), 1)


def test_celerys_setting_decides_where_it_is_set(server: RedisServer) -> None:
    app = jobs.make(
        "memory://",
        f"upshot+{server.url}",
        queue="q",
        result_backend_always_retry=True,
        result_backend_max_retries=2,
        result_backend_transport_options=IMPATIENT,
    )
    task_id = new_id()
    server.kill()

    with pytest.raises(Exception, match="failed to store result"):
        app.backend.mark_as_done(task_id, 1, Context(id=task_id))
    app.backend.close()
