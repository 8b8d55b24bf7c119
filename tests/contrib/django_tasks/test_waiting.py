"""What Django lacks: waiting, progress, revocation, forgetting, and how long things are kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import override_settings

from tests.contrib.django_tasks.project import BACKEND, IN_MEMORY
from tests.contrib.django_tasks.untyped import task_backends, tasks
from upshot.errors import ResultTimeoutError, TaskRevokedError
from upshot_contrib.django.companions import call_id

pytestmark = pytest.mark.usefixtures("worker")


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what a condition gives, once it gives something true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it has not come to be"
        time.sleep(0.005)
    return found


# -- waiting -------------------------------------------------------------------------------------


def test_wait_returns_the_result_when_its_task_has_ended() -> None:
    result = tasks.wait_until_open.enqueue()
    opener = threading.Timer(0.1, tasks.OPEN.set)
    opener.start()

    assert result.wait(timeout=20) is result
    assert result.return_value == "open"
    assert result.wait(timeout=0) is result, "it can be waited for again"
    opener.join()


def test_wait_raises_nothing_if_the_task_has_failed() -> None:
    assert tasks.fail.enqueue().wait(timeout=20).status == "FAILED"


def test_a_wait_has_an_end() -> None:
    result = tasks.wait_until_open.enqueue()

    for timeout in (0, 0.05):
        with pytest.raises(ResultTimeoutError, match=f"did not end within {timeout} seconds"):
            result.wait(timeout=timeout)
    tasks.OPEN.set()
    assert result.wait(timeout=20).return_value == "open"


def test_a_result_that_was_had_by_its_id_can_be_waited_for() -> None:
    result_id = tasks.wait_until_open.enqueue().id
    result: Any = tasks.wait_until_open.get_result(result_id)
    tasks.OPEN.set()

    assert result.wait(timeout=20).return_value == "open"


def test_a_coroutine_awaits_results() -> None:
    async def all_of_them() -> list[Any]:
        results = [await tasks.add_later.aenqueue(number, 1) for number in range(20)]
        return [each.return_value for each in await asyncio.gather(*results)]

    assert asyncio.run(all_of_them()) == list(range(1, 21))


def test_a_coroutine_task_awaits_another_task() -> None:
    result = tasks.add_elsewhere.enqueue(3)

    assert result.wait(timeout=20).return_value == 3


def test_an_await_has_the_end_that_asyncio_gives_it() -> None:
    async def impatient() -> str:
        result = await tasks.wait_until_open.aenqueue()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await result
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result, 0.05)
        tasks.OPEN.set()
        return str((await result).return_value)

    assert asyncio.run(impatient()) == "open"


# -- progress and revocation ---------------------------------------------------------------------


def test_progress_is_seen_while_the_task_runs_and_after() -> None:
    result = tasks.report.enqueue(3)

    def reported() -> Any:
        result.refresh()
        return result.progress

    assert until(reported) == {"current": 3, "total": 10, "note": "on its way"}
    assert result.status == "RUNNING"
    assert (result.args, result.attempts) == ([3], 1), "it did not take the place of the call"
    tasks.OPEN.set()
    assert result.wait(timeout=20).progress == {"current": 3, "total": 10, "note": "on its way"}
    assert result.return_value is False


def test_what_waits_can_be_revoked() -> None:
    later = tasks.count_runs.using(queue_name="mail", backend="anywhere").enqueue("never")

    assert later.revoke()
    later.refresh()
    assert (later.status, later.attempts, later.is_finished) == ("FAILED", 0, True)
    assert later.errors[0].exception_class is TaskRevokedError
    with pytest.raises(ValueError, match="Task failed"):
        _ = later.return_value
    assert not later.revoke(), "it has ended"


def test_what_runs_can_ask_whether_it_was_revoked() -> None:
    result = tasks.report.enqueue(1)
    until(lambda: task_backends["default"].get_result(result.id).progress)

    assert asyncio.run(result.arevoke())
    tasks.OPEN.set()
    assert result.wait(timeout=20).status == "FAILED"
    assert result.errors[0].exception_class is TaskRevokedError


# -- what is kept --------------------------------------------------------------------------------


def test_forgetting_leaves_nothing() -> None:
    app = task_backends["default"].app
    ways: tuple[Callable[[Any], Any], ...] = (
        lambda result: result.forget(),
        lambda result: asyncio.run(result.aforget()),
    )
    for forget in ways:
        result = tasks.add.enqueue(1, 2).wait(timeout=20)
        assert all(app.results.load_many([result.id, call_id(result.id)]))

        forget(result)

        assert app.results.load_many([result.id, call_id(result.id)]) == [None, None]
        with pytest.raises(TaskResultDoesNotExist):
            result.refresh()
        forget(result)


def test_the_call_is_kept_as_long_as_the_outcome() -> None:
    options = {**IN_MEMORY, "namespace": "short", "result_expires": 0.2}
    with override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
        app = task_backends["default"].app
        with app.running():
            result = tasks.add.enqueue(1, 2).wait(timeout=20)

            def gone() -> Any:
                return app.results.load_many([result.id, call_id(result.id)]) == [None, None]

            until(gone, seconds=5)


def test_without_records_of_what_waits_a_result_is_ready() -> None:
    options = {**IN_MEMORY, "namespace": "untracked", "task_track_queued": False}
    with override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
        result = tasks.add.enqueue(1, 2)

        assert tasks.add.get_result(result.id) == result
        assert result.status == "READY"


def test_results_are_kept_although_the_project_says_not_to() -> None:
    options = {**IN_MEMORY, "namespace": "ignoring", "task_ignore_result": True}
    with (
        override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}),
        task_backends["default"].app.running(),
    ):
        assert tasks.add.enqueue(1, 2).wait(timeout=20).return_value == 3


# -- without a clock's zone ----------------------------------------------------------------------


def test_a_project_without_zones_is_told_naive_times() -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="UTC"):
        from django.utils import timezone

        moment = timezone.now()
        result = tasks.add.using(run_after=moment).enqueue(1, 2).wait(timeout=20)
        again = tasks.add.get_result(result.id)

    assert timezone.is_naive(result.enqueued_at)
    assert again.task.run_after == moment
    assert moment <= again.enqueued_at <= again.started_at <= again.finished_at
