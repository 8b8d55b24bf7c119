"""What `@app.task` takes: options, checked, and a function, looked at."""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, overload

from upshot.checks import (
    check_exceptions,
    check_flag,
    check_limits,
    check_name,
    check_priority,
    shown,
)
from upshot.context import TaskContext
from upshot.errors import ConfigError
from upshot.message import RetryPolicy
from upshot.settings import Settings
from upshot.spec import TaskSpec
from upshot.task import Sender, Task, name_of
from upshot.yielding import generator_type, is_generator

__all__ = [
    "OPTIONS",
    "BoundDecorator",
    "Decorator",
    "check_options",
    "known_by",
    "register",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Decorator(typing.Protocol):
    """What `@app.task(…)` returns."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Generator[T, Any, R]], /
    ) -> Task[P, R, Generator[T, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[T]], /
    ) -> Task[P, None, AsyncIterator[T]]: ...
    @overload
    def __call__(self, function: Callable[P, Iterator[T]], /) -> Task[P, None, Iterator[T]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


class BoundDecorator(typing.Protocol):
    """What `@app.task(bind=True)` returns: callers do not give the first argument."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[Concatenate[TaskContext, P], Generator[T, Any, R]], /
    ) -> Task[P, R, Generator[T, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], AsyncIterator[T]], /
    ) -> Task[P, None, AsyncIterator[T]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Iterator[T]], /
    ) -> Task[P, None, Iterator[T]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R, R]: ...


OPTIONS: Final = frozenset(
    {
        "autoretry_for", "bind", "ignore_result", "max_retries", "name", "priority", "queue",
        "result_expires", "retry_backoff", "retry_backoff_max", "retry_jitter", "serializer",
        "soft_time_limit", "time_limit",
    }
)  # fmt: skip
"""Every option of `@app.task`."""


def _annotations(function: Callable[..., Any]) -> dict[str, object]:
    """Return the resolved annotations; none if one names something that cannot be found."""
    try:
        return dict(typing.get_type_hints(function))
    except (NameError, TypeError, AttributeError):
        return {}


def register(
    function: Callable[..., Any],
    *,
    options: Mapping[str, Any],
    tasks: MutableMapping[str, TaskSpec],
    settings: Settings,
    main: str | None,
    sender: Sender,
) -> Task[..., Any, Any]:
    """Add a task to `tasks`, under options that were checked, and return it.

    Raises:
        ConfigError: no task can have its name, the name is taken by another function, or the
            options for retries are wrong.
    """
    spec = _spec_of(function, options, settings=settings, main=main)
    taken = tasks.get(spec.name)
    if taken is not None and not _is_same_source(taken.function, function):
        raise ConfigError(f"two tasks are called {spec.name!r}; give one another name=")
    tasks[spec.name] = spec
    return Task(spec, sender)


def _spec_of(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    settings: Settings,
    main: str | None,
) -> TaskSpec:
    """Return what is registered for `function` under these options."""
    name = options.get("name")
    if name is None:
        name = name_of(function, main)
    check_name("a task's name", name)
    hints = _annotations(function)
    streams = is_generator(function)
    returns = hints.pop("return", None)
    return TaskSpec(
        name=name,
        function=function,
        bind=options.get("bind", False),
        queue=options.get("queue"),
        priority=options.get("priority"),
        autoretry_for=tuple(options.get("autoretry_for", ())),
        retry=RetryPolicy(
            max_retries=options.get("max_retries", settings.task_max_retries),
            backoff=options.get("retry_backoff", settings.task_retry_backoff),
            backoff_max=options.get("retry_backoff_max", settings.task_retry_backoff_max),
            jitter=options.get("retry_jitter", settings.task_retry_jitter),
        ),
        time_limit=options.get("time_limit", settings.task_time_limit),
        soft_time_limit=options.get("soft_time_limit", settings.task_soft_time_limit),
        ignore_result=options.get("ignore_result", settings.task_ignore_result),
        result_expires=options.get("result_expires", settings.result_expires),
        serializer=options.get("serializer"),
        streams=streams,
        returns=generator_type(returns) if streams else returns,
        parameters=hints,
    )


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options of `@app.task`: a worker would refuse each message of the task later.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    if unknown := options.keys() - OPTIONS:
        raise ConfigError(
            f"@app.task has no option {min(unknown)!r}; it has {', '.join(sorted(OPTIONS))}"
        )
    for limit in ("time_limit", "soft_time_limit", "result_expires"):
        check_limits(limit, options.get(limit))
    for flag in ("bind", "ignore_result"):
        check_flag(flag, options.get(flag, False))
    if options.get("queue") is not None:
        check_name("queue", options["queue"])
    check_priority(options.get("priority"))
    check_exceptions("autoretry_for", options.get("autoretry_for", ()))
    serializer = options.get("serializer")
    if not isinstance(serializer, str | None):
        raise ConfigError(f"serializer is a name, such as 'json'; not {shown(serializer)}")


def known_by(
    name: str, *, tasks: Mapping[str, TaskSpec], settings: Settings, sender: Sender
) -> Task[..., Any, Any]:
    """Return the task of that name, which need not be registered here."""
    return Task(tasks.get(name) or _elsewhere(name, settings), sender)


def _elsewhere(name: str, settings: Settings) -> TaskSpec:
    """Return what is known of a task that is registered in workers only: its name."""

    def nowhere(*_: object, **__: object) -> None:
        raise ConfigError(f"{name} runs where it is registered, which is not here")

    return TaskSpec(
        name=name,
        function=nowhere,
        ignore_result=settings.task_ignore_result,
        result_expires=settings.result_expires,
    )


def _is_same_source(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Tell a module that was imported twice (as `__main__` and by name) from a clash of names."""
    try:
        return inspect.getsourcefile(one) == inspect.getsourcefile(other) and (
            one.__qualname__ == other.__qualname__
        )
    except TypeError:
        return False
