"""What people get wrong, and what tasks do to their workers: each has one clear end."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from upshot import App, State, Task, current_task
from upshot.errors import ConfigError, Retry, TaskError, TaskRevokedError


class UnlookableError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("do not look")


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose services nobody else sees."""
    url = f"memory://{uuid.uuid4().hex}"
    with App("misuse", broker=url, backend=url) as app:
        yield app


@pytest.mark.parametrize(
    "options",
    [
        {"time_limit": "3"},
        {"time_limit": 0},
        {"soft_time_limit": math.nan},
        {"result_expires": "1"},
        {"result_expires": math.nan},
        {"countdown": math.inf},
        {"countdown": "1"},
        {"countdown": 1e300},
        {"expires": math.nan},
        {"priority": True},
        {"priority": "3"},
        {"queue": 5},
        {"queue": ""},
        {"queue": "a\x1b[31m"},
        {"retry": 5},
        {"headers": {1: 2}},
        {"ignore_result": "yes"},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_at_the_call_by_its_name(
    app: App, options: dict[str, Any]
) -> None:
    @app.task
    def one() -> int:
        return 1

    with pytest.raises(ConfigError, match=next(iter(options))):
        one.apply_async(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, "queue is 1 to 255"),
        ({"queue": 5}, "queue is 1 to 255"),
        ({"name": ""}, "name is 1 to 255"),
        ({"priority": 99}, "priority is 0 to 9"),
        ({"priority": "3"}, "priority is 0 to 9"),
        ({"ignore_result": "no"}, "ignore_result is True or False"),
        ({"ignore_result": None}, "ignore_result is True or False"),
        ({"bind": "no"}, "bind is True or False"),
        ({"serializer": 5}, "serializer is a name"),
        ({"autoretry_for": ValueError}, "autoretry_for is a tuple"),
        ({"autoretry_for": (1,)}, "autoretry_for is a tuple"),
        ({"autoretry_for": (ValueError, "KeyError")}, "autoretry_for is a tuple"),
        ({"autoretry_for": "KeyError"}, "autoretry_for is a tuple"),
        ({"autoretry_for": None}, "autoretry_for is a tuple"),
        ({"max_retries": -1}, "max_retries is 0 or more"),
        ({"retry_backoff": math.nan}, "backoff is zero or more"),
        ({"retry_jitter": "no"}, "jitter is True or False"),
        ({"time_limit": "3"}, "time_limit is more than 0"),
    ],
    ids=str,
)
def test_a_wrong_option_of_the_decorator_is_refused_where_it_stands(
    app: App, options: dict[str, Any], message: str
) -> None:
    decorate: Any = app.task

    with pytest.raises(ConfigError, match=message):
        decorate(**options)(lambda: 1)
    assert not app.tasks


def test_options_that_say_nothing_new_are_fine(app: App) -> None:
    def return_one() -> int:
        return 1

    options: dict[str, Any] = {"name": None, "queue": None, "priority": None, "serializer": None}
    options["autoretry_for"] = [KeyError]  # no tuple, but as good
    decorator: Any = app.task(**options)
    one: Task[[], int, int] = decorator(return_one)

    with app.running():
        assert one.delay().get(timeout=10) == 1


@pytest.mark.parametrize(
    "main", ["shop", "shop.jobs", "my-jobs", "2024_jobs", "__main__", "geschäft.büro", None]
)
def test_main_may_be_whatever_a_module_can_be_called(main: str | None) -> None:
    with App(main) as app:
        assert app.main == main


@pytest.mark.parametrize("main", ["", "a b", "shop..jobs", "shop/jobs.py", "shop:app", ".", 5])
def test_main_is_a_modules_name(main: Any) -> None:
    with pytest.raises(ConfigError, match="no module's name"):
        App(main)


def test_a_url_in_the_place_of_main_says_what_was_meant_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"redis://:\*\*\*@prod/0.*did you mean broker=") as found:
        App("redis://:s3cr3t@prod/0")

    assert "s3cr3t" not in str(found.value)


@pytest.mark.parametrize(
    "option",
    ["time_limit", "bind", "priority", "autoretry_for", "serializer", "queue"],
)
def test_a_url_in_the_place_of_an_option_is_shown_without_its_password(
    app: App, option: str
) -> None:
    url = "redis://:s3cr3t@prod/0"
    wrong: Any = {"serializer": [url], "queue": url * 20}.get(option, url)
    with pytest.raises(ConfigError, match=r"redis://:\*\*\*@prod") as found:
        app.task(**{option: wrong})(print)

    assert "s3cr3t" not in str(found.value)


def test_a_url_in_the_place_of_queues_or_a_moment_is_shown_without_its_password(app: App) -> None:
    url: Any = "redis://:s3cr3t@prod/0"
    with pytest.raises(ConfigError) as queues, app.running(queues=url):
        raise AssertionError("it runs")
    with pytest.raises(ConfigError) as moment:
        app.send_task("a", countdown=url)

    assert "s3cr3t" not in f"{queues.value}{moment.value}"


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, None])
def test_a_wrong_number_of_threads_is_refused_before_anything_starts(
    app: App, threads: Any
) -> None:
    before = threading.active_count()

    with pytest.raises(ConfigError, match="threads is 1 or more"), app.running(threads=threads):
        raise AssertionError("it runs")
    assert threading.active_count() == before
    app.close()


@pytest.mark.parametrize("queues", [[""], [5], "default", ["a\nb"], 5, ["good", None]])
def test_wrong_queues_are_refused_before_anything_starts(app: App, queues: Any) -> None:
    with pytest.raises(ConfigError, match="queue"), app.running(queues=queues):
        raise AssertionError("it runs")
    app.close()


@pytest.mark.parametrize("queues", [["other"], ("other", "default"), {"other"}, [], None])
def test_right_queues_are_served(app: App, queues: Any) -> None:
    @app.task
    def one() -> int:
        return 1

    with app.running(queues=queues):
        assert one.apply_async(queue="other" if queues else None).get(timeout=10) == 1


@pytest.mark.parametrize("name", ["", "\udcff", "a\nb", "x" * 256])
def test_a_name_that_cannot_be_written_is_refused(app: App, name: str) -> None:
    with pytest.raises(ConfigError, match="task's name"):
        app.send_task(name)


@pytest.mark.parametrize("countdown", [math.inf, math.nan, "3", True])
def test_a_retry_with_a_bad_countdown_fails_and_says_so(app: App, countdown: Any) -> None:
    runs: list[int] = []

    @app.task
    def again() -> None:
        runs.append(1)
        raise Retry(countdown=countdown)

    with app.running():
        error = again.delay().exception(timeout=10)

    assert isinstance(error, ConfigError)
    assert "countdown" in str(error)
    assert runs == [1]


def test_an_exception_that_cannot_be_looked_at_still_ends_its_task(app: App) -> None:
    @app.task(autoretry_for=(KeyError,))
    def bad() -> None:
        raise UnlookableError

    @app.task
    def good() -> int:
        return 1

    with app.running(threads=1):
        error = bad.delay().exception(timeout=10)
        assert good.delay().get(timeout=10) == 1

    assert isinstance(error, TaskError)
    assert "UnlookableError" in str(error)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_a_task_raises_its_worker_lives_on(app: App, kind: type[BaseException]) -> None:
    @app.task
    def raise_it() -> None:
        raise kind

    with app.running(threads=1):
        assert raise_it.delay().exception(timeout=10) is not None
        assert raise_it.delay().exception(timeout=10) is not None


def test_a_short_expiry_counts_from_the_end_of_the_task() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with App("misuse", broker=url, backend=url, result_expires=0.2) as app:

        @app.task
        def nap() -> str:
            time.sleep(1.0)
            return current_task().name

        with app.running():
            deadline = time.monotonic() + 0.5  # half a second before it can end
            handle, seen = nap.delay(), set[str]()
            while time.monotonic() < deadline:
                seen.add(handle.state)
            assert handle.get(timeout=10) == nap.name
            while handle.state != State.PENDING and time.monotonic() < deadline + 10:
                time.sleep(0.01)

    assert seen <= {State.QUEUED, State.STARTED}
    assert time.monotonic() < deadline + 10


def test_a_revocation_outlasts_the_message_that_it_forbids() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with App("misuse", broker=url, backend=url, result_expires=0.1) as app:
        runs: list[int] = []

        @app.task
        def note() -> None:
            runs.append(1)

        with app.running():
            handle = note.apply_async(countdown=0.4)
            assert handle.revoke() is True
            after = note.apply_async(countdown=0.6)
            after.add_done_callback(lambda done: None)
            deadline = time.monotonic() + 10
            while not runs and time.monotonic() < deadline:
                time.sleep(0.01)
            with pytest.raises(TaskRevokedError):
                handle.get(timeout=0)

    assert runs == [1]


def test_closing_while_a_worker_runs_is_refused(app: App) -> None:
    with app.running(), pytest.raises(ConfigError, match="running"):
        app.close()


def test_a_task_that_outlasts_the_grace_goes_back_and_the_app_can_close() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    app = App("misuse", broker=url, backend=url, worker_shutdown_timeout=0.1)
    ended: list[float] = []

    @app.task
    def nap() -> None:
        time.sleep(1.0)
        ended.append(time.monotonic())

    with app:
        with app.running():
            handle = nap.delay()
            deadline = time.monotonic() + 10
            while handle.state != State.STARTED and time.monotonic() < deadline:
                time.sleep(0.005)
        with app.running():
            # By the first attempt, whose thread nobody can end, or by the second: one outcome.
            assert handle.get(timeout=10) is None
    assert ended
