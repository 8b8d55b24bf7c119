"""Celery's settings and ours, on each service; tasks run in this process, eagerly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contrib.celery.conftest import QUIET, Setting, comes_true, new_id
from tests.contrib.celery.untyped import (
    Context,
    GroupResult,
    ImproperlyConfigured,
)
from upshot.record import Record

pytestmark = QUIET

Opener = Callable[..., Any]


def stored(app: Any, task_id: str) -> Record:
    found: Record | None = app.backend.client.load(task_id)
    assert found is not None
    return found


def request(task_id: str, **fields: Any) -> Any:
    return Context(id=task_id, delivery_info={"routing_key": "q"}, **fields)


def late_result(state: str) -> Any:
    return ValueError("late") if state in ("RETRY", "FAILURE", "REVOKED") else "late"


# -- what may follow what -------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["STARTED", "RETRY", "HALFWAY", "FAILURE", "REVOKED", "SUCCESS"])
def test_a_success_is_final(open_app: Opener, late: str) -> None:
    app, task_id = open_app(), new_id()
    app.backend.mark_as_done(task_id, "first")
    before = stored(app, task_id)

    app.backend.store_result(task_id, late_result(late), late)

    assert app.AsyncResult(task_id).result == "first"
    assert stored(app, task_id) == before


@pytest.mark.parametrize("end", ["FAILURE", "REVOKED"])
def test_a_success_replaces_another_end(open_app: Opener, end: str) -> None:
    app, task_id = open_app(), new_id()
    app.backend.store_result(task_id, ValueError("worker lost"), end)

    app.backend.mark_as_done(task_id, "second run", request=request(task_id))

    assert (app.AsyncResult(task_id).state, app.AsyncResult(task_id).result) == (
        "SUCCESS",
        "second run",
    )


@pytest.mark.parametrize("late", ["STARTED", "RETRY", "HALFWAY", "REVOKED", "FAILURE"])
def test_a_failure_stays_until_there_is_a_success(open_app: Opener, late: str) -> None:
    app, task_id = open_app(), new_id()
    app.backend.mark_as_failure(task_id, ValueError("first"))

    app.backend.store_result(task_id, late_result(late), late, request=request(task_id))

    result = app.AsyncResult(task_id)
    assert (result.state, result.result.args) == ("FAILURE", ("first",))


@pytest.mark.parametrize("end", ["FAILURE", "REVOKED"])
def test_every_end_is_final_if_strict(open_app: Opener, end: str) -> None:
    app = open_app(result_backend_transport_options={"upshot_strict": True})
    task_id = new_id()
    app.backend.store_result(task_id, ValueError("first"), end)

    app.backend.mark_as_done(task_id, "second run", request=request(task_id))

    assert app.AsyncResult(task_id).state == end


def test_an_earlier_attempt_replaces_nothing_of_a_later_one(open_app: Opener) -> None:
    app, task_id = open_app(), new_id()
    second, first = request(task_id, retries=1), request(task_id, retries=0)
    app.backend.store_result(task_id, {"at": 2}, "HALFWAY", request=second)

    app.backend.store_result(task_id, {"at": 1}, "HALFWAY", request=first)
    app.backend.mark_as_retry(task_id, ValueError("late"), request=first)
    app.backend.mark_as_failure(task_id, ValueError("late"), request=first)

    assert app.AsyncResult(task_id).info == {"at": 2}


def test_a_later_attempt_follows_a_retry(open_app: Opener) -> None:
    app, task_id = open_app(), new_id()
    app.backend.mark_as_retry(task_id, ValueError("again"), request=request(task_id, retries=0))

    app.backend.store_result(task_id, {}, "STARTED", request=request(task_id, retries=1))

    assert app.AsyncResult(task_id).state == "STARTED"


def test_states_of_one_attempt_follow_each_other_freely(open_app: Opener) -> None:
    app, task_id = open_app(), new_id()
    seen: list[str] = []
    for state in ("STARTED", "HALFWAY", "QUEUED", "HALFWAY", "STARTED", "lower case", "PENDING"):
        app.backend.store_result(task_id, state, state, request=request(task_id))
        seen.append(app.AsyncResult(task_id).state)

    assert seen == ["STARTED", "HALFWAY", "QUEUED", "HALFWAY", "STARTED", "lower case", "PENDING"]


def test_who_is_not_the_task_may_set_its_state(open_app: Opener) -> None:
    app, task_id = open_app(), new_id()
    app.backend.store_result(task_id, 1, "HALFWAY", request=request(task_id, retries=5))

    app.backend.store_result(task_id, None, "ABORTED")
    aborted = app.AsyncResult(task_id).state
    app.backend.mark_as_done(task_id, 1, request=request(task_id, retries=5))

    assert (aborted, app.AsyncResult(task_id).state) == ("ABORTED", "SUCCESS")


def test_writers_at_once_leave_a_success(open_app: Opener) -> None:
    app, task_id = open_app(), new_id()
    when = threading.Event()

    def write(state: str, value: Any) -> None:
        when.wait()
        app.backend.store_result(task_id, value, state, request=request(task_id))

    writes: list[tuple[str, Any]] = [
        ("STARTED", 0),
        ("FAILURE", ValueError()),
        ("SUCCESS", 1),
        ("HALFWAY", 2),
    ] * 4
    threads = [threading.Thread(target=write, args=each) for each in writes * 5]
    for thread in threads:
        thread.start()
    when.set()
    for thread in threads:
        thread.join()

    assert app.AsyncResult(task_id).result == 1


# -- expiry ---------------------------------------------------------------------------------------


def test_a_result_expires(eager: Opener) -> None:
    app = eager(result_expires=1)
    result = app.AsyncResult(app.jobs.echo.delay("short-lived").id)

    assert result.state == "SUCCESS"
    assert comes_true(lambda: app.AsyncResult(result.id).state == "PENDING", within=5)


@pytest.mark.parametrize("never", [0, None])
def test_a_result_is_kept_for_ever_if_so_set(eager: Opener, never: Any) -> None:
    app = eager()
    app.conf.result_expires = never

    assert app.backend.client.expires is None
    assert app.jobs.echo.delay(1).get() == 1


def test_a_failure_may_expire_sooner(eager: Opener) -> None:
    app = eager(result_failure_expires=1)
    failure = app.jobs.fail.delay("short-lived")
    success = app.jobs.echo.delay("long-lived")

    assert comes_true(lambda: app.AsyncResult(failure.id).state == "PENDING", within=5)
    assert app.AsyncResult(success.id).state == "SUCCESS"


def test_progress_outlives_the_expiry_of_results(open_app: Opener) -> None:
    app, task_id = open_app(result_expires=1), new_id()
    app.backend.store_result(task_id, 1, "HALFWAY")
    time.sleep(1.3)

    assert app.AsyncResult(task_id).state == "HALFWAY"


def test_cleanup_removes_what_has_expired(eager: Opener, setting: Setting) -> None:
    app = eager(result_expires=1)
    result = app.jobs.echo.delay("short-lived")
    kept = app.jobs.echo.apply_async(("kept",))
    app.backend.expires = 60
    app.backend.mark_as_done("kept", 1)
    time.sleep(1.3)

    app.backend.cleanup()

    assert app.AsyncResult(result.id).state == "PENDING"
    assert app.AsyncResult("kept").state == "SUCCESS"
    assert app.backend.supports_autoexpire == (setting.name in ("redis", "mongodb"))
    assert kept.id != result.id


# -- what is stored, and how ----------------------------------------------------------------------


def test_a_result_tells_more_of_its_task_if_extended(eager: Opener) -> None:
    app = eager(result_extended=True)
    result = app.AsyncResult(app.jobs.add.apply_async((1,), {"y": 2}).id)

    assert (result.name, result.args, result.kwargs) == ("add", [1], {"y": 2})
    assert result.retries == 0
    assert result.worker


def test_a_result_tells_nothing_of_its_task_otherwise(eager: Opener) -> None:
    app = eager()
    result = app.AsyncResult(app.jobs.add.apply_async((1,), {"y": 2}).id)

    assert [result.name, result.args, result.kwargs, result.retries] == [None] * 4


@pytest.mark.parametrize(("serializer", "value"), [("pickle", {1: (2, {3})}), ("json", {"a": [1]})])
def test_values_are_written_by_the_result_serializer(
    eager: Opener, serializer: str, value: Any
) -> None:
    app = eager(
        result_serializer=serializer,
        task_serializer=serializer,
        accept_content=["json", "pickle"],
    )

    task_id = app.jobs.echo.delay(value).id

    assert app.AsyncResult(task_id).result == value
    outcome = stored(app, task_id).outcome
    assert outcome is not None
    assert (
        outcome.content_type
        == {
            "json": "application/json;utf-8",
            "pickle": "application/x-python-serialize;binary",
        }[serializer]
    )


def test_exceptions_take_along_what_the_serializer_takes(eager: Opener) -> None:
    app = eager(result_serializer="pickle", task_serializer="pickle", accept_content=["pickle"])

    got = app.AsyncResult(app.jobs.fail.delay({1, 2}).id).result

    assert got.args == ({1, 2},)


def test_content_that_is_not_accepted_is_not_read(eager: Opener, open_app: Opener) -> None:
    writer = eager(result_serializer="pickle", accept_content=["pickle"])
    namespace = {"upshot_namespace": writer.backend.client.namespace}
    reader = open_app(result_backend_transport_options=namespace)
    result = writer.jobs.echo.delay(1)

    with pytest.raises(Exception, match="Refusing to deserialize"):
        _ = reader.AsyncResult(result.id).result


def test_results_may_be_compressed(eager: Opener) -> None:
    app, text = eager(result_compression="gzip"), "again and " * 10_000

    task_id = app.jobs.echo.delay(text).id

    assert app.AsyncResult(task_id).result == text
    outcome = stored(app, task_id).outcome
    assert outcome is not None
    assert len(outcome.body) < 5_000


def test_results_are_cached_if_so_set(eager: Opener) -> None:
    app = eager(result_cache_max=10)
    task_id = app.jobs.echo.delay("cached").id
    first = app.AsyncResult(task_id).result
    app.backend.client.forget([task_id])

    assert (first, app.AsyncResult(task_id).result) == ("cached", "cached")


# -- ours -----------------------------------------------------------------------------------------


def test_namespaces_are_apart(open_app: Opener) -> None:
    one, other = open_app(), open_app()
    one.backend.mark_as_done("same id", 1)

    assert other.AsyncResult("same id").state == "PENDING"


def test_celerys_prefix_is_a_namespace(setting: Setting) -> None:
    app = setting.app(result_backend_transport_options={"global_keyprefix": "shop"})

    assert app.backend.client.namespace == "shop"
    app.backend.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"upshot_strickt": True}, "there is upshot_strict"),
        ({"upshot_strict": "yes"}, "'upshot_strict' is of type bool"),
        ({"upshot_namespace": ""}, "1 to 48 characters"),
        ({"global_keyprefix": "k" * 49}, "global_keyprefix in its place, has 1 to 48"),
        ({"upshot_timeout": 0}, "more than 0 seconds"),
        ({"upshot_timeout": float("inf")}, "less than a day"),
    ],
)
def test_a_wrong_option_is_refused(open_app: Opener, options: Any, what: str) -> None:
    app = open_app()
    app.conf.result_backend_transport_options = options

    with pytest.raises(ImproperlyConfigured, match=what):
        _ = app.backend.client
    app.conf.result_backend_transport_options = {}


# Celery's own Redis backend uses a command that redis-py deprecates.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_what_the_backend_before_has_is_still_read(setting: Setting, open_app: Opener) -> None:
    before = setting.app(
        backend=setting.broker, result_backend_transport_options={"global_keyprefix": new_id()}
    )
    app = open_app(
        result_backend_transport_options={
            "upshot_earlier_backend": setting.broker,
            **before.conf.result_backend_transport_options,
        }
    )
    ids = [new_id() for _ in range(4)]
    before.backend.mark_as_done(ids[0], {"old": True})
    before.backend.mark_as_failure(ids[1], KeyError("old"))
    before.backend.save_group(ids[2], GroupResult(ids[2], [app.AsyncResult(ids[0])], app=app))
    timer = threading.Timer(0.3, before.backend.mark_as_done, (ids[3], "while waiting"))
    timer.start()

    assert app.AsyncResult(ids[0]).get(timeout=5) == {"old": True}
    assert app.AsyncResult(ids[1]).state == "FAILURE"
    assert GroupResult.restore(ids[2], app=app).get(timeout=5) == [{"old": True}]
    assert app.AsyncResult(ids[3]).get(timeout=5) == "while waiting"
    app.AsyncResult(ids[0]).forget()
    assert app.AsyncResult(ids[0]).state == before.backend.get_state(ids[0]) == "PENDING"
    timer.join()
    for each in (before.backend, app.backend._earlier):  # which Celery has no way to close
        each.client.connection_pool.disconnect()


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_what_was_stored_since_wins_over_the_backend_before(
    setting: Setting, open_app: Opener
) -> None:
    task_id = new_id()
    before = setting.app(backend=setting.broker)
    app = open_app(result_backend_transport_options={"upshot_earlier_backend": setting.broker})
    before.backend.mark_as_done(task_id, "old")
    app.backend.mark_as_done(task_id, "new")

    assert app.AsyncResult(task_id).get(timeout=5) == "new"
    before.backend.forget(task_id)
    for each in (before.backend, app.backend._earlier):  # which Celery has no way to close
        each.client.connection_pool.disconnect()
