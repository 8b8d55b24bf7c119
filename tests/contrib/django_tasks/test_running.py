"""What a worker makes of tasks: values, errors, contexts, signals. After Django's own tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.tasks import Task, TaskResultStatus
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import override_settings
from django.utils import timezone

from tests.contrib.django_tasks.project import BACKEND, IN_MEMORY
from tests.contrib.django_tasks.untyped import task_backends, tasks
from upshot.errors import SoftTimeLimitExceededError
from upshot_contrib.django.tasks import UpshotBackend
from upshot_contrib.django.tasks.known import KNOWN

pytestmark = pytest.mark.usefixtures("worker")


def ended(task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Enqueue a task, and return its result when it has ended, as another process would see it."""
    result: Any = task.enqueue(*args, **kwargs)
    return task.get_result(result.wait(timeout=20).id)


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [tasks.add, tasks.add_later])
def test_a_value_comes_home(task: Task[..., Any]) -> None:
    result = ended(task, 1, y=2)

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished
    assert result.return_value == 3
    assert result.enqueued_at <= result.started_at == result.last_attempted_at
    assert result.started_at <= result.finished_at
    assert (result.task, result.args, result.kwargs) == (task, [1], {"y": 2})
    assert (result.attempts, len(result.worker_ids), result.errors) == (1, 1, [])
    assert result.worker_ids[0]


def test_none_is_a_value() -> None:
    result = ended(tasks.nothing)

    assert (result.status, result.return_value) == ("SUCCESSFUL", None)


def test_a_result_that_was_had_before_shows_the_end_when_it_is_refreshed() -> None:
    result = tasks.wait_until_open.enqueue()
    early = tasks.wait_until_open.get_result(result.id)
    tasks.OPEN.set()
    result.wait(timeout=20)

    assert not early.is_finished
    early.refresh()
    assert early == result
    assert early.return_value == "open"


def test_arguments_come_as_json_gives_them_back() -> None:
    given: list[Any] = [(1, 2), {"a": [None, True, 1.5]}, "ä", {"$type": "x"}, [[]]]
    result = tasks.everything.enqueue(*given, context=1, args=(2,), task=3)

    assert result.wait(timeout=20).return_value == [
        [[1, 2], {"a": [None, True, 1.5]}, "ä", {"$type": "x"}, [[]]],
        {"context": 1, "args": [2], "task": 3},
    ]
    assert result.args[0] == [1, 2]


def test_a_task_does_not_run_before_its_moment() -> None:
    moment = timezone.now() + timedelta(seconds=0.4)
    result = tasks.add.using(run_after=moment).enqueue(1, 1)

    assert tasks.add.get_result(result.id).task.run_after == moment
    result.wait(timeout=20)
    assert result.started_at is not None
    assert result.started_at >= moment


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (tasks.fail, ValueError, "as asked"),
        (tasks.fail_later, ValueError, "as asked"),
        (tasks.refuse, tasks.RefusedError, "not today"),
        (tasks.leave, SystemExit, "This task asked to leave"),
    ],
)
def test_an_error_comes_home(task: Task[..., Any], kind: type[BaseException], message: str) -> None:
    result = ended(task)

    assert result.status == TaskResultStatus.FAILED
    assert result.is_finished
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    (error,) = result.errors
    assert error.exception_class is kind
    lines = error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].endswith(f"{kind.__name__}: {message}")
    assert f"in {task.name}" in lines[1], "the traceback does not begin with the task's function"
    assert error.traceback.endswith("\n")
    assert result.started_at <= result.finished_at
    assert (result.args, result.attempts, result._return_value) == ([], 1, None)


def test_what_is_no_json_is_an_error() -> None:
    result = ended(tasks.unserialisable)

    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TypeError
    assert "Unsupported type" in result.errors[0].traceback


def test_arguments_that_do_not_fit_are_an_error() -> None:
    result = ended(tasks.add, 1, 2, 3)

    assert result.errors[0].exception_class is TypeError
    assert "3 were given" in result.errors[0].traceback


def test_a_name_that_nobody_declared_is_refused_and_not_imported() -> None:
    app = task_backends["default"].app
    handle = app.send_task("shutil.rmtree", ["/nowhere"])
    error = handle.exception(timeout=20)

    assert "no task 'shutil.rmtree'" in str(error).lower() or "shutil.rmtree" in str(error)
    assert KNOWN.find("shutil.rmtree") is None


@pytest.mark.parametrize(
    "header",
    [
        1,
        {},
        {"priority": "1", "run_after": None, "backend": "default", "enqueued_at": 1.0},
        {"priority": 1, "run_after": "soon", "backend": "default", "enqueued_at": 1.0},
        {"priority": 1, "run_after": None, "backend": "default", "enqueued_at": 1e300},
    ],
)
def test_a_header_that_is_none_of_ours_is_an_error_of_the_task(header: Any) -> None:
    app = task_backends["default"].app
    handle = app.send_task(tasks.add.module_path, [1, 2], headers={"django.tasks": header})

    assert type(handle.exception(timeout=20)).__name__ == "DecodeError"


@pytest.mark.parametrize("backend", ["unknown", "immediate", "default"])
def test_an_alias_that_a_message_names_need_not_be_there(backend: str) -> None:
    app = task_backends["default"].app
    header = {"priority": 0, "run_after": None, "backend": backend, "enqueued_at": 1.0}
    handle = app.send_task(tasks.add.module_path, [1, 2], headers={"django.tasks": header})

    assert handle.get(timeout=20) == 3


def test_a_task_can_be_sent_by_its_name_alone() -> None:
    handle = task_backends["default"].app.send_task(tasks.who.module_path)

    told = handle.get(timeout=20)
    assert told == {**told, "id": handle.id, "priority": 0, "backend": "default"}


# -- contexts ------------------------------------------------------------------------------------


def test_a_context_tells_what_runs() -> None:
    result = ended(tasks.who.using(priority=3, queue_name="mail"))

    assert result.return_value == {
        "id": result.id,
        "attempt": 1,
        "status": "RUNNING",
        "priority": 3,
        "queue": "mail",
        "backend": "default",
        "workers": result.worker_ids,
        "own": result.id,
    }


def test_a_context_comes_before_the_arguments() -> None:
    assert ended(tasks.tell, "hello", name="you").return_value == "hello, you: 1"


def test_attempts_are_counted() -> None:
    result = ended(tasks.attempt, 2)

    assert result.return_value == 3
    assert result.attempts == 3
    assert result.worker_ids[:2] == ["", ""], "only the last attempt's worker is known"
    assert result.worker_ids[2]


def test_the_last_attempt_has_the_error() -> None:
    result = ended(tasks.attempt, 9)

    assert (result.status, result.attempts) == ("FAILED", 4)
    assert [error.exception_class for error in result.errors] == [ValueError]
    assert result.errors[0].traceback.endswith("ValueError: attempt 4\n")


# -- aliases -------------------------------------------------------------------------------------


def test_a_task_of_another_alias_runs_where_it_is_enqueued() -> None:
    result = ended(tasks.elsewhere.using(backend="default"))

    assert (result.return_value, result.backend, result.task.backend) == (
        "here",
        "default",
        "default",
    )


def test_a_task_may_go_to_any_queue_of_an_alias_that_has_no_list() -> None:
    result = ended(tasks.who.using(backend="anywhere", queue_name="any"))

    assert (result.return_value["backend"], result.return_value["queue"]) == ("anywhere", "any")


def test_the_projects_own_app_runs_tasks_of_both_kinds() -> None:
    from upshot_contrib.django.app import app

    result = ended(tasks.shared)

    assert result.return_value == "shared"
    assert app.AsyncResult(result.id).get(timeout=0) == "shared"


# -- signals -------------------------------------------------------------------------------------


@contextmanager
def heard() -> Generator[list[tuple[str, Any, Any, Any]]]:
    """Note what is signalled: which, by whom, and status and errors at the time."""
    said: list[tuple[str, Any, Any, Any]] = []

    def receiver(name: str) -> Callable[..., None]:
        def note(sender: Any, task_result: Any, **_: Any) -> None:
            kinds = [error.exception_class for error in task_result.errors]
            said.append((name, sender, task_result.status.value, kinds))

        return note

    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = {name: receiver(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    try:
        yield said
    finally:
        for name, signal in signals.items():
            signal.disconnect(receivers[name])


@pytest.mark.parametrize(
    ("task", "args", "status", "kinds"),
    [
        (tasks.add, (1, 2), "SUCCESSFUL", []),
        (tasks.add_later, (1, 2), "SUCCESSFUL", []),
        (tasks.fail, (), "FAILED", [ValueError]),
        (tasks.fail_later, (), "FAILED", [ValueError]),
        (tasks.unserialisable, (), "FAILED", [TypeError]),
    ],
)
def test_signals_are_sent(task: Task[..., Any], args: Any, status: str, kinds: list[Any]) -> None:
    with heard() as said:
        ended(task, *args)

    first: list[Any] = [
        ("enqueued", UpshotBackend, "READY", []),
        ("started", UpshotBackend, "RUNNING", []),
    ]
    assert sorted(said[:2]) == first, "of these two, either may come first"
    assert said[2:] == [("finished", UpshotBackend, status, kinds)]


def test_a_retry_has_begun_anew_and_has_not_finished() -> None:
    with heard() as said:
        ended(tasks.attempt, 1)

    assert [name for name, *_ in said].count("started") == 2
    assert [name for name, *_ in said].count("finished") == 1


def test_a_retry_that_is_not_left_has_finished() -> None:
    with heard() as said:
        result = ended(tasks.give_up)

    assert (result.status, result.attempts) == ("FAILED", 4)
    assert [name for name, *_ in said].count("started") == 4
    assert said[-1] == ("finished", UpshotBackend, "FAILED", [tasks.RefusedError])
    assert [name for name, *_ in said].count("finished") == 1
    assert result.errors[0].exception_class is tasks.RefusedError


def test_a_coroutine_that_takes_too_long_says_so_to_receivers() -> None:
    options = {**IN_MEMORY, "namespace": "hasty", "task_soft_time_limit": 0.05}
    with (
        override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}),
        task_backends["default"].app.running(),
        heard() as said,
    ):
        result = ended(tasks.sleep, 20)

    assert result.errors[0].exception_class is SoftTimeLimitExceededError
    assert said[-1] == ("finished", UpshotBackend, "FAILED", [SoftTimeLimitExceededError])


@pytest.mark.parametrize("task", [tasks.add, tasks.add_later])
def test_a_receiver_that_raises_changes_nothing(
    task: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("a receiver")

    signals = (task_enqueued, task_started, task_finished)
    for signal in signals:
        signal.connect(broken)
    try:
        result = ended(task, 1, 2)
    finally:
        for signal in signals:
            signal.disconnect(broken)

    assert (result.status, result.return_value) == ("SUCCESSFUL", 3)
    assert caplog.text.count("RuntimeError: a receiver") == 3


def test_a_receiver_may_use_the_database_beside_a_coroutine() -> None:
    from django.db import connection

    seen: list[Any] = []

    def look(**_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            seen.append(cursor.fetchone())

    task_started.connect(look)
    try:
        ended(tasks.add_later, 1, 2)
    finally:
        task_started.disconnect(look)

    assert seen == [(1,)]


def test_django_logs_what_happens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="django.tasks"):
        good, bad = ended(tasks.add, 1, 2), ended(tasks.fail)

    lines = [record.getMessage() for record in caplog.records if record.name == "django.tasks"]
    for result, state in ((good, "SUCCESSFUL"), (bad, "FAILED")):
        mine = "\n".join(line for line in lines if result.id in line)
        assert "enqueued" in mine
        assert "state=RUNNING" in mine
        assert f"state={state}" in mine
    failed = [each for each in caplog.records if f"{bad.id}" in each.getMessage()]
    assert any(each.levelname == "ERROR" and each.exc_info for each in failed)
    assert not any(each.exc_info for each in caplog.records if good.id in each.getMessage())
