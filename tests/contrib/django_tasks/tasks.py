"""The tasks of the project of these tests. Django imports this module as every app's `tasks`."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from django.db.models import IntegerChoices, TextChoices
from django.tasks import TaskContext, task
from django.utils.safestring import mark_safe

from upshot import current_task
from upshot_contrib.django.tasks import UpshotContext

__all__ = [
    "OPEN",
    "RUNS",
    "Level",
    "RefusedError",
    "Size",
    "add",
    "add_elsewhere",
    "add_later",
    "attempt",
    "count_runs",
    "elsewhere",
    "everything",
    "fail",
    "fail_later",
    "give_up",
    "leave",
    "nothing",
    "refuse",
    "report",
    "shared",
    "sleep",
    "subclasses",
    "subclasses_later",
    "tell",
    "unserialisable",
    "wait_until_open",
    "who",
]

OPEN = threading.Event()
"""Set to let `wait_until_open` return."""

RUNS: list[Any] = []
"""What `count_runs` was called with, in that order."""


class Size(TextChoices):
    """Text that is a member of an enumeration."""

    LARGE = "L"


class Level(IntegerChoices):
    """Numbers that are."""

    HIGH = 3


class RefusedError(Exception):
    """What `refuse` raises: an exception of the project's own."""


@task
def nothing(*args: Any, **kwargs: Any) -> None:
    """Return None."""


@task
def add(x: int, y: int = 0) -> int:
    """Return a sum."""
    return x + y


@task
async def add_later(x: int, y: int) -> int:
    """Return a sum, from a coroutine."""
    return x + y


@task
def everything(*args: Any, **kwargs: Any) -> list[Any]:
    """Return what it was called with."""
    return [list(args), kwargs]


@task
def fail() -> None:
    """Raise one of Python's exceptions."""
    raise ValueError("as asked")


@task
async def fail_later() -> None:
    """Do so in a coroutine."""
    raise ValueError("as asked")


@task
def refuse() -> None:
    """Raise the project's own."""
    raise RefusedError("not today")


@task
def leave() -> None:
    """Ask the interpreter to end."""
    raise SystemExit("This task asked to leave")


@task
def unserialisable() -> Any:
    """Return what is no JSON."""
    return lambda: True


@task(takes_context=True)
def who(context: TaskContext[..., Any]) -> dict[str, Any]:
    """Return what the context tells."""
    result = context.task_result
    return {
        "id": result.id,
        "attempt": context.attempt,
        "status": result.status.value,
        "priority": result.task.priority,
        "queue": result.task.queue_name,
        "backend": result.backend,
        "workers": result.worker_ids,
        "own": current_task().task_id,
    }


@task(takes_context=True)
def tell(context: TaskContext[..., Any], greeting: str, *, name: str) -> str:
    """Return arguments beside a context."""
    return f"{greeting}, {name}: {context.attempt}"


@task(takes_context=True)
def report(context: TaskContext[..., Any], steps: int) -> bool:
    """Say how far it is, wait until it may end, and tell whether it was revoked."""
    assert isinstance(context, UpshotContext)
    context.progress(steps, 10, note="on its way")
    OPEN.wait(20)
    return context.is_revoked()


@task
def wait_until_open() -> str:
    """Return when the test lets it."""
    return "open" if OPEN.wait(20) else "closed"


@task(queue_name="mail")
def count_runs(value: Any) -> int:
    """Note a value; return how many there are."""
    RUNS.append(value)
    return len(RUNS)


@task(takes_context=True)
def attempt(context: TaskContext[..., Any], fails: int) -> int:
    """Have itself run again until so many attempts have failed."""
    if context.attempt <= fails:
        current_task().retry(countdown=0, reason=ValueError(f"attempt {context.attempt}"))
    time.sleep(0)
    return context.attempt


@task(backend="immediate")
def elsewhere() -> str:
    """Be a task of a backend that is not ours."""
    return "here"


@task(backend="shared", queue_name="shared")
def shared() -> str:
    """Be a task of the project's own app."""
    return "shared"


@task
def subclasses() -> list[Any]:
    """Return what `json` writes and is no plain text or number."""
    return [mark_safe("<b>"), Size.LARGE, Level.HIGH, {Size.LARGE: Level.HIGH}]


@task
async def subclasses_later() -> Any:
    """Return such a value from a coroutine, as one that has rendered a template does."""
    return mark_safe("<b>")


@task
def give_up() -> None:
    """Ask to be run again for the exception that is being handled."""
    try:
        raise RefusedError("not today")
    except RefusedError:
        current_task().retry(countdown=0)


@task
async def add_elsewhere(times: int) -> Any:
    """Have other tasks count, one after the other."""
    total = 0
    for _ in range(times):
        result: Any = await add_later.aenqueue(total, 1)
        total = (await result).return_value
    return total


@task
async def sleep(seconds: float) -> None:
    """Wait in a coroutine."""
    await asyncio.sleep(seconds)
