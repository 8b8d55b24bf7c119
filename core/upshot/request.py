"""One call, as `apply_async` takes it, and what may stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from upshot.checks import (
    check_key,
    check_limits,
    check_name,
    check_priority,
    is_number,
    shown,
)
from upshot.errors import ConfigError
from upshot.message import RetryPolicy
from upshot.spec import TaskSpec

__all__ = ["FAR", "Request", "check_request"]

FAR: Final = 100 * 365 * 86_400.0
"""Seconds from the beginning of 1970: a moment that lies further off is a mistake."""

_AS_TASK: Final = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call, as `apply_async` takes it. None leaves a choice to the task, then to the app."""

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    spec: TaskSpec | None = None
    task_id: str | None = None
    queue: str | None = None
    countdown: float | None = None
    eta: float | None = None
    expires: float | None = None
    priority: int | None = None
    headers: Mapping[str, Any] | None = None
    result_expires: float | None = -1.0
    ignore_result: bool | None = None
    time_limit: float | None = -1.0
    soft_time_limit: float | None = -1.0
    retry: RetryPolicy | None = None
    serializer: str | None = None
    key: str | None = None
    key_expires: float | None = -1.0


def check_request(request: Request) -> None:
    """Check whatever a worker would have to refuse later.

    Raises:
        ConfigError: a choice is of the wrong type or out of range; the message names it.
    """
    check_name("a task's name", request.name)
    if request.queue is not None:
        check_name("queue", request.queue)
    check_priority(request.priority)
    for name in ("countdown", "eta", "expires"):
        value = getattr(request, name)
        if value is not None and not (is_number(value) and abs(value) < FAR):
            raise ConfigError(
                f"{name} is a number of seconds or a moment, less than {FAR:g}; not {shown(value)}"
            )
    for name in ("result_expires", "time_limit", "soft_time_limit"):
        value = getattr(request, name)
        if value != _AS_TASK:
            check_limits(name, value)
    if request.key is not None or request.key_expires != _AS_TASK:
        _check_key(request.key, request.key_expires)
    if request.retry is not None and type(request.retry) is not RetryPolicy:
        raise ConfigError(f"retry is a RetryPolicy, not {shown(request.retry)}")
    ignore: object = request.ignore_result
    if ignore is not None and type(ignore) is not bool:
        raise ConfigError(f"ignore_result is True, False or None, not {shown(ignore)}")
    headers = cast("Mapping[Any, Any]", request.headers or {})
    if not all(type(key) is str for key in headers):
        raise ConfigError("headers have text as keys")


def _check_key(key: str | None, expires: float | None) -> None:
    if key is None:
        raise ConfigError("key_expires is how long the key is taken: give a key, too")
    check_key(key)
    if expires != _AS_TASK:
        check_limits("key_expires", expires)
