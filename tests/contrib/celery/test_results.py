"""`AsyncResult` of one task, run by a real worker, on each service."""

from __future__ import annotations

import datetime
import decimal
import os
import pickle
import subprocess
import threading
import time
import uuid
from typing import Any

import pytest

from tests.contrib.celery.conftest import CELERY, PATIENCE, QUIET, ROOT, Setting, comes_true, new_id
from tests.contrib.celery.jobs import Broken, Unpicklable
from tests.contrib.celery.untyped import (
    CeleryTimeoutError,
    MaxRetriesExceededError,
    TaskRevokedError,
    UnpickleableExceptionWrapper,
)
from upshot.errors import RemoteError, ResultForgottenError

pytestmark = QUIET

FALSY: list[Any] = [None, False, 0, "", [], {}]
VALUES: list[Any] = [
    2**70,
    -0.0,
    "naïve \U0001f600 \x00",
    b"\x00\xff",
    {"nested": [1, {"deep": None}]},
    datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC),
    decimal.Decimal("1.10"),
    uuid.UUID(int=7),
]


class Kept(list[Any]):
    """Called with a result that has ended, keeps its value."""

    def __call__(self, ended: Any) -> None:
        self.append(ended.result)


def fall_over(_: Any) -> None:
    raise ZeroDivisionError


def get(result: Any, **options: Any) -> Any:
    return result.get(timeout=PATIENCE, **options)


# -- values ---------------------------------------------------------------------------------------


def test_a_value_comes_home(app: Any) -> None:
    result = app.jobs.add.delay(2, 3)

    assert get(result) == 5
    assert (result.state, result.result, result.info) == ("SUCCESS", 5, 5)
    assert result.ready()
    assert result.successful()
    assert not result.failed()


@pytest.mark.parametrize("value", FALSY, ids=repr)
def test_a_falsy_value_is_a_value(app: Any, value: Any) -> None:
    result = app.jobs.echo.delay(value)

    got = get(result)

    assert got == value
    assert type(got) is type(value)
    assert app.AsyncResult(result.id).successful()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_celerys_json_takes_comes_home(app: Any, value: Any) -> None:
    assert get(app.jobs.echo.delay(value)) == value


def test_a_large_value_comes_home(app: Any) -> None:
    assert get(app.jobs.blob.delay(2_000_000)) == "x" * 2_000_000


def test_a_result_is_read_any_number_of_times_by_anybody(app: Any, setting: Setting) -> None:
    result = app.jobs.echo.delay("again")
    stranger = setting.app()

    got = [get(result), get(result), get(app.AsyncResult(result.id))]
    got.append(get(stranger.AsyncResult(result.id)))
    stranger.backend.close()

    assert got == ["again"] * 4


def test_a_wait_ends_when_the_result_is_there(app: Any) -> None:
    result = app.jobs.nap.delay(0.3)
    began = time.monotonic()

    get(result)

    assert time.monotonic() - began < 5


def test_the_moment_it_ended_is_known(app: Any) -> None:
    before = datetime.datetime.now(datetime.UTC)
    result = app.jobs.echo.delay(1)
    get(result)

    assert before <= result.date_done <= datetime.datetime.now(datetime.UTC)


# -- waiting --------------------------------------------------------------------------------------


def test_an_unknown_id_is_pending(app: Any) -> None:
    result = app.AsyncResult(new_id())

    assert (result.state, result.result, result.traceback) == ("PENDING", None, None)
    assert not result.ready()


@pytest.mark.parametrize("timeout", [0, 0.05, 0.3])
def test_a_timeout_is_kept(app: Any, timeout: float) -> None:
    result = app.AsyncResult(new_id())
    began = time.monotonic()

    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=timeout)

    assert timeout <= time.monotonic() - began < timeout + 0.5


def test_a_wait_that_timed_out_leaves_nothing_and_can_be_repeated(app: Any) -> None:
    before = app.backend.client.stats()["waiters"]
    result = app.jobs.nap.delay(0.5, "late")

    for _ in range(3):
        with pytest.raises(CeleryTimeoutError):
            result.get(timeout=0.02)

    assert get(result) == "late"
    assert comes_true(lambda: app.backend.client.stats()["waiters"] <= before)


def test_on_interval_is_called_meanwhile(app: Any) -> None:
    calls: list[float] = []

    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult(new_id()).get(timeout=1.2, on_interval=lambda: calls.append(0))

    assert calls


def test_get_calls_the_callback(app: Any) -> None:
    got: list[Any] = []
    result = app.jobs.echo.delay(3)

    def keep(task_id: str, value: Any) -> None:
        got.append((task_id, value))

    get(result, callback=keep)

    assert got == [(result.id, 3)]


def test_on_message_hears_of_states_and_of_the_end(app: Any) -> None:
    heard: list[dict[str, Any]] = []
    result = app.jobs.report.delay(1.5)

    assert get(result, on_message=heard.append) == "all of it"
    assert [meta["status"] for meta in heard] == ["HALFWAY", "SUCCESS"]
    assert heard[0]["result"] == {"done": 1, "of": 2}
    assert {meta["task_id"] for meta in heard} == {result.id}


def test_then_is_called_without_anybody_waiting(app: Any) -> None:
    called = Kept()
    result = app.jobs.nap.delay(0.2, "there")

    result.then(called)

    assert comes_true(lambda: called == ["there"])


def test_then_is_called_for_what_ended_before(app: Any) -> None:
    result = app.jobs.echo.delay("early")
    get(result)
    called = Kept()

    app.AsyncResult(result.id).then(called)

    assert comes_true(lambda: called == ["early"])


def test_a_callback_that_raises_keeps_no_other_from_being_called(app: Any) -> None:
    called = Kept()
    bad, good = app.jobs.nap.delay(0.2), app.jobs.nap.delay(0.3, "good")

    bad.then(fall_over)
    good.then(called)

    assert comes_true(lambda: called == ["good"])


def test_many_threads_wait_at_once(app: Any) -> None:
    results = [app.jobs.echo.delay(number) for number in range(16)]
    got: dict[int, Any] = {}

    def wait(number: int) -> None:
        got[number] = get(app.AsyncResult(results[number % 16].id))

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert got == {number: number % 16 for number in range(48)}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_parent_and_child_of_a_fork_both_wait(app: Any) -> None:
    get(app.jobs.echo.delay("before"))
    result = app.jobs.nap.delay(0.3, "both")

    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if app.AsyncResult(result.id).get(timeout=PATIENCE) == "both" else 2
        finally:
            os._exit(code)

    assert get(result) == "both"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- failures -------------------------------------------------------------------------------------


def test_a_failure_is_raised_and_told(app: Any) -> None:
    result = app.jobs.fail.delay("why", 7)

    with pytest.raises(ValueError, match="why") as caught:
        get(result)

    assert caught.value.args == ("why", 7)
    assert (result.state, result.failed(), result.successful()) == ("FAILURE", True, False)
    assert isinstance(result.result, ValueError)
    assert "in fail\n" in result.traceback
    assert result.traceback.rstrip().endswith("ValueError: ('why', 7)")


def test_a_failure_is_returned_if_it_is_not_to_be_raised(app: Any) -> None:
    got = get(app.jobs.fail.delay("quietly"), propagate=False)

    assert isinstance(got, ValueError)
    assert got.args == ("quietly",)


def test_a_failure_is_raised_every_time(app: Any) -> None:
    result = app.jobs.fail.delay("again")

    for handle in (result, result, app.AsyncResult(result.id)):
        with pytest.raises(ValueError, match="again"):
            get(handle)


def test_an_exception_comes_home_with_its_attributes(app: Any) -> None:
    result = app.jobs.fail_with_attributes.delay()

    with pytest.raises(Broken) as caught:
        get(result)

    assert (caught.value.code, str(caught.value)) == (418, "418: teapot")
    assert repr(caught.value) == "Broken('418: teapot')"
    assert result.traceback.rstrip().endswith("Broken: 418: teapot")


def test_an_exception_comes_home_with_its_cause_and_notes(app: Any) -> None:
    with pytest.raises(RuntimeError, match="outer") as caught:
        get(app.jobs.fail_with_cause.delay())

    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__notes__ == ["a note"]


def test_an_exception_comes_home_that_cannot_be_pickled(app: Any) -> None:
    with pytest.raises(Unpicklable) as caught:
        get(app.jobs.fail_unpicklable.delay())

    assert caught.value.args[0] == "nothing pickles a file"
    assert str(type(caught.value)) == str(Unpicklable)


def test_code_that_catches_celerys_wrapper_for_it_still_does(app: Any) -> None:
    with pytest.raises(UnpickleableExceptionWrapper) as caught:
        get(app.jobs.fail_with_attributes.delay())

    assert isinstance(caught.value, Broken)
    kept = vars(caught.value)
    assert (kept["exc_cls_name"], kept["exc_args"]) == ("Broken", ("418: teapot",))


def test_a_class_that_is_not_known_here_is_named(app: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        get(app.jobs.fail_with_a_class_of_its_own.delay())

    assert caught.value.type_name.endswith("OnlyHere")
    assert caught.value.args_repr == ("'nobody else knows it'", "7")


def test_a_value_that_cannot_be_stored_is_a_failure(app: Any) -> None:
    result = app.jobs.return_what_json_does_not_take.delay()

    with pytest.raises(Exception, match="not JSON serializable"):
        get(result)
    assert result.state == "FAILURE"


def test_an_expected_failure_is_one_all_the_same(app: Any) -> None:
    with pytest.raises(LookupError, match="expected"):
        get(app.jobs.fail_as_expected.delay())


def test_an_errback_is_called(app: Any, setting: Setting) -> None:
    result = app.jobs.fail.apply_async(("bad",), link_error=app.jobs.remember_failure.s())
    get(result, propagate=False)

    assert comes_true(
        lambda: (
            setting.errbacks.exists()
            and f"{result.id} ValueError('bad')" in setting.errbacks.read_text()
        )
    )


# -- states ---------------------------------------------------------------------------------------


def test_a_custom_state_and_its_meta_are_seen(app: Any) -> None:
    result = app.jobs.report.delay(1.0)

    assert comes_true(lambda: result.state == "HALFWAY")
    assert result.info == {"done": 1, "of": 2}
    assert not result.ready()
    assert get(result) == "all of it"


def test_a_start_is_seen_with_pid_and_host(app: Any) -> None:
    result = app.jobs.tracked.delay(1.0)

    assert comes_true(lambda: result.state == "STARTED")
    info = result.info
    assert set(info) == {"pid", "hostname"}
    assert get(result) == info["pid"]


def test_a_retry_is_seen_with_its_reason(app: Any) -> None:
    result = app.jobs.later.delay()

    assert comes_true(lambda: result.state == "RETRY")
    assert isinstance(result.info, ValueError)
    assert "much later" in result.traceback
    result.revoke()


def test_a_task_that_is_retried_succeeds(app: Any) -> None:
    result = app.jobs.third_time.delay()

    assert get(result) == 2
    assert result.state == "SUCCESS"


def test_a_task_that_is_retried_too_often_fails_with_the_reason(app: Any) -> None:
    with pytest.raises((ValueError, MaxRetriesExceededError), match="never"):
        get(app.jobs.never.delay())


def test_a_revoked_task_is_revoked(app: Any) -> None:
    result = app.jobs.echo.apply_async((1,), countdown=1.5)
    time.sleep(0.3)
    result.revoke()

    with pytest.raises(TaskRevokedError):
        get(result)
    assert result.state == "REVOKED"


def test_an_aborted_task_learns_of_it(app: Any) -> None:
    result = app.jobs.abortable.delay()
    time.sleep(0.2)

    app.jobs.abortable.AsyncResult(result.id).abort()

    assert get(result) == "aborted"


@pytest.mark.parametrize(
    ("meta", "kind", "args"),
    [
        (
            {"exc_type": "KeyError", "exc_message": ["x"], "exc_module": "builtins"},
            KeyError,
            ("x",),
        ),
        ({"why": "just so"}, Exception, ({"why": "just so"},)),
    ],
    ids=["as Celery writes it", "as applications do"],
)
def test_a_failure_that_the_task_itself_stored_can_be_read(
    app: Any, meta: Any, kind: type[Exception], args: tuple[Any, ...]
) -> None:
    result = app.jobs.end_as.delay("FAILURE", meta)

    got = get(result, propagate=False)

    assert type(got) is kind
    assert got.args == args
    assert result.state == "FAILURE"


# -- what is not stored ---------------------------------------------------------------------------


def test_an_ignored_result_is_not_stored(app: Any) -> None:
    result = app.jobs.unread.delay("nobody reads it")
    get(app.jobs.echo.delay("after it"))
    time.sleep(0.1)

    assert result.get() is None
    assert app.AsyncResult(result.id).state == "PENDING"


def test_a_result_ignored_by_its_caller_is_not_stored(app: Any) -> None:
    result = app.jobs.echo.apply_async(("unread",), ignore_result=True)
    get(app.jobs.echo.delay("after it"))
    time.sleep(0.1)

    assert app.AsyncResult(result.id).state == "PENDING"


def test_a_failure_is_stored_if_so_set_although_the_result_is_ignored(app: Any) -> None:
    result = app.AsyncResult(app.jobs.unread_failure.delay().id)

    assert comes_true(lambda: result.state == "FAILURE")
    assert isinstance(result.result, ValueError)


# -- release --------------------------------------------------------------------------------------


def test_a_forgotten_result_is_pending_for_everybody(app: Any) -> None:
    result = app.jobs.echo.delay("forget it")
    get(result)

    result.forget()
    result.forget()

    assert result.state == "PENDING"
    assert app.AsyncResult(result.id).state == "PENDING"


def test_a_wait_ends_when_its_result_is_forgotten(app: Any) -> None:
    result = app.AsyncResult(new_id())
    timer = threading.Timer(0.2, lambda: app.AsyncResult(result.id).forget())
    timer.start()

    with pytest.raises(ResultForgottenError):
        result.get(timeout=PATIENCE)
    timer.join()


def test_what_was_stored_exists(app: Any) -> None:
    result = app.jobs.echo.delay(1)
    get(result)

    assert result.exists()
    result.forget()
    assert not result.exists()


# -- handles --------------------------------------------------------------------------------------


def test_a_pickled_handle_has_no_password_and_finds_its_app(app: Any) -> None:
    result = app.jobs.echo.delay("by pickle")
    app.set_current()

    pickled = pickle.dumps(result)

    assert get(pickle.loads(pickled)) == "by pickle"
    password = app.backend._url.password
    assert password is None or password.encode() not in pickled


def test_the_url_is_shown_without_its_password(app: Any, setting: Setting) -> None:
    shown = app.backend.as_uri()
    password = app.backend._url.password

    assert shown.startswith("upshot+")
    assert password is None or password not in shown
    assert app.backend.as_uri(include_password=True) == setting.backend


def test_every_thread_has_the_same_backend(app: Any) -> None:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(app.backend))
    thread.start()
    thread.join()

    assert seen == [app.backend]


def test_subtasks_are_children_and_are_collected(app: Any) -> None:
    result = app.jobs.call.delay(4)
    get(result)

    assert [get(child) for child in result.children] == [8]
    assert [value for _, value in result.collect(timeout=PATIENCE)] == [4, 8]
    assert result.get_leaf() == 8
    assert len(result.graph) == 2


def test_a_task_that_returns_a_group_is_followed(app: Any) -> None:
    result = app.jobs.fan_out.delay(3)
    get(result)

    assert comes_true(lambda: all(child.ready() for child in result.children))
    values = [value for _, value in result.collect(timeout=PATIENCE)]
    assert [0, 2, 4] in values


def test_a_task_that_is_replaced_ends_as_what_replaces_it(app: Any) -> None:
    assert get(app.jobs.become.delay(5)) == 105


def test_celerys_command_shows_a_result(app: Any, setting: Setting) -> None:
    result = app.jobs.echo.delay("for the shell")
    get(result)
    environment = {"BROKER": setting.broker, "BACKEND": setting.backend, "QUEUE": setting.queue}

    shown = subprocess.run(
        [*CELERY, "result", result.id],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert shown.stdout.strip().endswith("for the shell"), shown.stderr


def test_a_worker_says_where_its_results_go(app: Any, worker: Any, setting: Setting) -> None:
    get(app.jobs.echo.delay(1))

    assert f"results:     {app.backend.as_uri()}" in worker.read_text()
