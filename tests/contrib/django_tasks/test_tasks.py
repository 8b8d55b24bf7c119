"""What Django says of every backend: declaring, enqueuing, looking. After Django's own tests."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task
from django.tasks.base import Task
from django.tasks.exceptions import (
    InvalidTask,
    InvalidTaskBackend,
    TaskResultDoesNotExist,
    TaskResultMismatch,
)
from django.test import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string

from tests.contrib.django_tasks.project import TASKS
from tests.contrib.django_tasks.untyped import default_task_backend, task_backends, tasks
from upshot.errors import DecodeError
from upshot_contrib.django.tasks import UpshotBackend, UpshotResult

# -- backends ------------------------------------------------------------------------------------


def test_an_alias_is_an_object_of_ours_with_its_options() -> None:
    assert default_task_backend == task_backends["default"]
    assert isinstance(task_backends["default"], UpshotBackend)
    assert default_task_backend.alias == "default"
    assert default_task_backend.options == TASKS["default"]["OPTIONS"]
    assert default_task_backend.queues == {"default", "mail"}


def test_it_supports_all_that_django_knows_of() -> None:
    backend = default_task_backend

    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


def test_without_options_it_has_the_app_of_the_project() -> None:
    from upshot_contrib.django.app import app

    assert task_backends["shared"].app is app
    assert task_backends["default"].app is not app


@override_settings(TASKS={})
def test_without_backends_nothing_can_be_enqueued() -> None:
    with pytest.raises(InvalidTaskBackend):
        tasks.nothing.enqueue()


# -- declaring -----------------------------------------------------------------------------------


def test_the_decorator_makes_tasks_of_django() -> None:
    for each in (tasks.nothing, tasks.add_later, tasks.who):
        assert isinstance(each, Task)
    assert tasks.add.name == "add"
    assert tasks.add.module_path == "tests.contrib.django_tasks.tasks.add"
    assert import_string(tasks.add.module_path) is tasks.add
    assert isinstance(tasks.add.get_backend(), UpshotBackend)


def test_a_task_is_a_function_of_a_module() -> None:
    def local() -> None: ...

    functions: list[Any] = [any, local, tasks.RUNS.append]
    for function in functions:
        with pytest.raises(InvalidTask, match="must be defined at a module level"):
            task()(function)


def test_a_task_that_takes_a_context_has_a_parameter_for_it() -> None:
    with pytest.raises(InvalidTask, match="first argument of 'context'"):
        task(takes_context=True)(tasks.nothing.func)


def test_a_variant_changes_one_thing_and_nothing_of_the_original() -> None:
    moment = timezone.now()
    variant = tasks.add.using(run_after=moment).using(priority=10)

    assert (variant.run_after, variant.priority, variant.queue_name) == (moment, 10, "default")
    assert (tasks.add.run_after, tasks.add.priority) == (None, 0)
    assert tasks.add.using(queue_name="mail").queue_name == "mail"
    assert tasks.add.using() == tasks.add
    assert tasks.add.using() is not tasks.add


@pytest.mark.parametrize("priority", [-101, 101, 3.1])
def test_a_priority_is_a_whole_number_of_up_to_100(priority: Any) -> None:
    with pytest.raises(InvalidTask, match="priority must be a whole number between -100 and 100"):
        tasks.nothing.using(priority=priority)


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_the_bounds_are_priorities(priority: int) -> None:
    assert tasks.nothing.using(priority=priority).priority == priority


def test_a_moment_has_a_zone() -> None:
    with pytest.raises(InvalidTask, match="run_after must be an aware datetime"):
        tasks.nothing.using(run_after=datetime(2030, 1, 1))


@pytest.mark.parametrize("zones", [True, False])
def test_a_moment_is_one_that_a_message_takes(zones: bool) -> None:
    zone = UTC if zones else None
    with override_settings(USE_TZ=zones):
        for wrong in (timedelta(hours=1), date(2030, 1, 1), "tomorrow", 5):
            with pytest.raises(InvalidTask, match=f"a datetime, not {type(wrong).__name__}"):
                tasks.nothing.using(run_after=wrong)
        for far in (datetime.max, datetime.min, datetime(2100, 1, 1)):
            with pytest.raises(InvalidTask, match="run_after must be less than 100 years from"):
                tasks.nothing.using(run_after=far.replace(tzinfo=zone))
        for near in (datetime(1900, 1, 1), datetime(2069, 1, 1)):
            moment = near.replace(tzinfo=zone)
            result = tasks.nothing.using(run_after=moment).enqueue()
            assert tasks.nothing.get_result(result.id).task.run_after == moment


def test_a_queue_is_one_that_the_alias_has() -> None:
    with pytest.raises(InvalidTask, match="Queue 'other' is not valid for backend"):
        tasks.nothing.using(queue_name="other")
    assert tasks.nothing.using(queue_name="other", backend="anywhere").queue_name == "other"


@pytest.mark.parametrize("name", ["", "a\nb", "q" * 256])
def test_a_queue_has_a_name_that_a_message_can_hold(name: str) -> None:
    with pytest.raises(InvalidTask, match="The name of a queue is 1 to 255 printable characters"):
        tasks.nothing.using(queue_name=name, backend="anywhere")


def test_an_alias_is_one_that_there_is() -> None:
    with pytest.raises(InvalidTaskBackend, match="The connection 'unknown' doesn't exist"):
        tasks.nothing.using(backend="unknown")


def test_a_task_can_be_called_here() -> None:
    assert tasks.add.call(2, 3) == 5
    assert tasks.add_later.call(2, 3) == 5
    assert asyncio.run(tasks.add.acall(2, 3)) == 5
    assert asyncio.run(tasks.add_later.acall(2, 3)) == 5


# -- enqueuing -----------------------------------------------------------------------------------


def test_what_was_enqueued_is_ready() -> None:
    before = timezone.now()
    result = tasks.add.enqueue(1, y=2)

    assert isinstance(result, UpshotResult)
    assert result.status == TaskResultStatus.READY
    assert result.task == tasks.add
    assert (result.args, result.kwargs, result.backend) == ([1], {"y": 2}, "default")
    assert result.enqueued_at is not None
    assert before <= result.enqueued_at <= timezone.now()
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert (result.attempts, result.worker_ids, result.errors) == (0, [], [])
    assert not result.is_finished
    assert len(result.id) < 64
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value


def test_a_coroutine_enqueues() -> None:
    async def enqueue() -> Any:
        return await tasks.add.aenqueue(1, 2)

    result = asyncio.run(enqueue())

    assert (result.status, result.task, result.args) == ("READY", tasks.add, [1, 2])


@pytest.mark.parametrize("argument", [datetime(2030, 1, 1), {1, 2}, object()])
def test_arguments_are_json(argument: Any) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        tasks.nothing.enqueue(argument)
    with pytest.raises(TypeError, match="Unsupported type"):
        asyncio.run(tasks.nothing.aenqueue(key=argument))


def test_the_queue_is_looked_at_again_when_a_task_is_enqueued() -> None:
    variant = tasks.nothing.using(queue_name="mail")
    only = {"default": {**TASKS["default"], "QUEUES": ["another"]}}

    with override_settings(TASKS=only):
        with pytest.raises(InvalidTask, match="Queue 'mail' is not valid for backend"):
            variant.enqueue()
        with pytest.raises(InvalidTask, match="Queue 'mail' is not valid for backend"):
            asyncio.run(variant.aenqueue())


def test_larger_priorities_run_first() -> None:
    tasks.RUNS.clear()
    sent = [
        tasks.count_runs.using(priority=priority).enqueue(priority)
        for priority in (0, -100, 100, 1, -1, 50)
    ]
    with task_backends["default"].app.running(threads=1, queues=["mail"]):
        for each in sent:
            each.wait(timeout=20)

    assert tasks.RUNS == [100, 50, 1, 0, -1, -100]


# -- looking -------------------------------------------------------------------------------------


def test_a_result_is_had_from_its_id() -> None:
    result = tasks.add.using(priority=7).enqueue(1, y=2)

    assert tasks.add.get_result(result.id) == result
    assert default_task_backend.get_result(result.id) == result
    assert asyncio.run(tasks.add.aget_result(result.id)) == result
    assert tasks.add.get_result(result.id).task.priority == 7


@pytest.mark.parametrize("result_id", ["123", "", "a\nb", "x" * 300, 123, "\ud800"])
def test_an_unknown_id_has_no_result(result_id: Any) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(result_id)
    with pytest.raises(TaskResultDoesNotExist):
        asyncio.run(tasks.add.aget_result(result_id))


def test_a_result_is_of_the_task_that_is_asked_for_it() -> None:
    result = tasks.add.enqueue(1, 2)

    with pytest.raises(TaskResultMismatch, match="Task does not match"):
        tasks.nothing.get_result(result.id)
    with pytest.raises(TaskResultMismatch, match="Task does not match"):
        asyncio.run(tasks.nothing.aget_result(result.id))


def test_looking_again_changes_nothing_of_what_waits() -> None:
    result = tasks.add.enqueue(1, 2)
    before = dataclasses.asdict(result)

    result.refresh()
    assert dataclasses.asdict(result) == before
    asyncio.run(result.arefresh())
    assert dataclasses.asdict(result) == before


def test_a_result_cannot_be_changed_by_others_and_survives_pickling() -> None:
    result = tasks.add.enqueue(1, 2)

    with pytest.raises(dataclasses.FrozenInstanceError):
        result.status = TaskResultStatus.FAILED
    for field in dataclasses.fields(result):
        if field.name != "task":  # whose function is, in its module, the task
            value = getattr(result, field.name)
            assert pickle.loads(pickle.dumps(value)) == value


def test_a_result_of_a_task_that_is_not_declared_here_is_refused() -> None:
    app = task_backends["default"].app
    result = tasks.add.enqueue(1, 2)
    record = app.results.load(f"{result.id}/call")
    assert record is not None
    assert record.info is not None
    body = record.info.body.replace(b"django_tasks.tasks.add", b"django_tasks.tasks.odd")
    app.results.store(record._replace(info=record.info._replace(body=body)))

    with pytest.raises(TaskResultMismatch, match=r"No task '.*tasks\.odd' is declared"):
        default_task_backend.get_result(result.id)


def test_a_record_of_a_call_with_what_is_no_json_is_an_error_of_its_own() -> None:
    app = task_backends["default"].app
    result = tasks.add.enqueue(1, 2)
    record = app.results.load(f"{result.id}/call")
    assert record is not None
    assert record.info is not None
    body = record.info.body.replace(b"[1,2]", b'[{"$date":"2030-01-01"},2]')
    assert body != record.info.body
    app.results.store(record._replace(info=record.info._replace(body=body)))

    with pytest.raises(DecodeError, match="arguments of a call are JSON values: Unsupported type"):
        default_task_backend.get_result(result.id)
