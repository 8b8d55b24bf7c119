"""A Celery application as its users write them; the worker of these tests runs it.

`python -m celery -A tests.contrib.celery.jobs:worker …` takes its URLs from the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from tests.contrib.celery.untyped import AbortableTask, Celery, Ignore, group

__all__ = ["Broken", "Decorator", "Unpicklable", "make", "worker"]


F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """What `app.task` is, and `app.task(bind=True)` returns one such."""

    def __call__(self, **options: Any) -> Callable[[F], F]: ...


class Broken(Exception):  # noqa: N818 - as applications name them
    """Cannot be made again from its arguments."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


class Unpicklable(Exception):  # noqa: N818 - as above
    """Has something that no pickle takes."""

    def __init__(self, why: str) -> None:
        super().__init__(why, open(os.devnull))  # noqa: SIM115 - closed with the process


def make(broker: str, backend: Any, *, queue: str, **settings: Any) -> Any:
    """Return an app with all tasks; `app.jobs.add` is the task "add"."""
    app = Celery(
        "jobs",
        broker=broker,
        backend=backend,
        task_default_queue=queue,
        broker_connection_retry_on_startup=True,
        set_as_current=False,
        **settings,
    )
    app.jobs = SimpleNamespace()

    def task(**options: Any) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            registered: F = app.task(name=function.__name__, shared=False, **options)(function)
            setattr(app.jobs, function.__name__, registered)
            return registered

        return decorate

    _plain(task)
    _failing(task)
    _with_retries(task)
    _with_states(task)
    _with_others(task, app)
    return app


def _plain(task: Decorator) -> None:
    @task()
    def add(x: Any, y: Any) -> Any:
        return x + y

    @task()
    def echo(value: Any) -> Any:
        return value

    @task()
    def total(values: list[int]) -> int:
        return sum(values)

    @task()
    def nap(seconds: float, value: Any = None) -> Any:
        time.sleep(seconds)
        return value

    @task()
    def blob(size: int) -> str:
        return "x" * size

    @task()
    def mark(path: str) -> None:
        with open(path, "a") as file:
            file.write("x")

    @task(ignore_result=True)
    def unread(value: Any) -> Any:
        return value

    @task(ignore_result=True, store_errors_even_if_ignored=True)
    def unread_failure() -> None:
        raise ValueError("kept all the same")


def _failing(task: Decorator) -> None:
    @task()
    def fail(*args: Any) -> None:
        raise ValueError(*args)

    @task()
    def fail_with_attributes() -> None:
        raise Broken(418, "teapot")

    @task()
    def fail_with_cause() -> None:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            outer = RuntimeError("outer")
            outer.add_note("a note")
            raise outer from exc

    @task()
    def fail_unpicklable() -> None:
        raise Unpicklable("nothing pickles a file")

    @task()
    def fail_with_a_class_of_its_own() -> None:
        class OnlyHere(Exception):  # noqa: N818 - as above
            pass

        raise OnlyHere("nobody else knows it", 7)

    @task()
    def return_what_json_does_not_take() -> object:
        return object()

    @task(throws=(LookupError,))
    def fail_as_expected() -> None:
        raise LookupError("expected")


def _with_retries(task: Decorator) -> None:
    @task(bind=True, max_retries=2, default_retry_delay=0)
    def third_time(self: Any) -> int:
        if self.request.retries < 2:
            self.retry(exc=ValueError("not yet"), countdown=0)
        return int(self.request.retries)

    @task(bind=True, max_retries=1)
    def never(self: Any) -> None:
        self.retry(exc=ValueError("never"), countdown=0)

    @task(bind=True, max_retries=None)
    def later(self: Any) -> None:
        self.retry(exc=ValueError("much later"), countdown=60)


def _with_states(task: Decorator) -> None:
    @task(bind=True)
    def report(self: Any, seconds: float) -> str:
        self.update_state(state="HALFWAY", meta={"done": 1, "of": 2})
        time.sleep(seconds)
        return "all of it"

    @task(bind=True)
    def end_as(self: Any, state: str, meta: Any) -> None:
        self.update_state(state=state, meta=meta)
        raise Ignore

    @task(bind=True, track_started=True)
    def tracked(self: Any, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    @task(bind=True, base=AbortableTask)
    def abortable(self: Any) -> str:
        end = time.monotonic() + 10
        while not self.is_aborted() and time.monotonic() < end:
            time.sleep(0.02)
        return "aborted" if self.is_aborted() else "not aborted"


def _with_others(task: Decorator, app: Any) -> None:
    @task(bind=True)
    def call(self: Any, x: int) -> int:
        app.jobs.add.delay(x, x)
        return x

    @task()
    def fan_out(count: int) -> Any:
        return group((app.jobs.add.s(i, i) for i in range(count)), app=app)()

    @task(bind=True)
    def become(self: Any, x: int) -> Any:
        raise self.replace(app.jobs.add.s(x, 100))

    @task(bind=True)
    def widen(self: Any, x: int) -> int:
        self.add_to_chord(app.jobs.echo.s(1000))
        return x

    @task()
    def remember_failure(request: Any, exc: Any, traceback: Any) -> None:
        with open(os.environ["ERRBACKS"], "a") as file:
            file.write(f"{request.id} {exc!r}\n")


def _of_the_environment() -> Any:
    environment = os.environ
    return make(environment["BROKER"], environment["BACKEND"], queue=environment["QUEUE"])


worker = _of_the_environment() if "QUEUE" in os.environ else None
