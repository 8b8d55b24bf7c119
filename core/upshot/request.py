"""One call, as `apply_async` takes it, and what may stand in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from upshot.errors import ConfigError
from upshot.execution import TaskSpec
from upshot.message import LONGEST, MAX_NAME, MAX_PRIORITY, RetryPolicy, is_name
from upshot.record import printable

__all__ = ["Request", "check_limits", "check_name", "check_request"]

_FAR: Final = 100 * 365 * 86_400.0  # seconds: what lies further off is a mistake
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


def check_request(request: Request) -> None:
    """Check whatever a worker would have to refuse later.

    Raises:
        ConfigError: a choice is of the wrong type or out of range; the message names it.
    """
    check_name("a task's name", request.name)
    if request.queue is not None:
        check_name("queue", request.queue)
    priority = request.priority
    if priority is not None and not (type(priority) is int and 0 <= priority <= MAX_PRIORITY):
        raise ConfigError(f"priority is 0 to {MAX_PRIORITY}, larger first; not {priority!r}")
    for name in ("countdown", "eta", "expires"):
        value = getattr(request, name)
        if value is not None and not (_is_number(value) and abs(value) < _FAR):
            raise ConfigError(
                f"{name} is a number of seconds or a moment, less than {_FAR:g}; not {value!r}"
            )
    for name in ("result_expires", "time_limit", "soft_time_limit"):
        value = getattr(request, name)
        if value != _AS_TASK:
            check_limits(name, value)
    if request.retry is not None and type(request.retry) is not RetryPolicy:
        raise ConfigError(f"retry is a RetryPolicy, not {request.retry!r}")
    ignore: object = request.ignore_result
    if ignore is not None and type(ignore) is not bool:
        raise ConfigError(f"ignore_result is True, False or None, not {ignore!r}")
    headers = cast("Mapping[Any, Any]", request.headers or {})
    if not all(type(key) is str for key in headers):
        raise ConfigError("headers have text as keys")


def check_name(what: str, name: object) -> None:
    """Check the name of a task or queue: 1 to 255 printable characters.

    Raises:
        ConfigError: it is anything else.
    """
    if not is_name(name):
        shown = printable(name) if isinstance(name, str) else repr(name)
        raise ConfigError(f"{what} is 1 to {MAX_NAME} printable characters, not {shown!r}")


def check_limits(name: str, value: object) -> None:
    """Check a duration: more than 0 and at most `LONGEST` seconds, or None.

    Raises:
        ConfigError: it is anything else.
    """
    if value is not None and not (_is_number(value) and 0 < cast("float", value) <= LONGEST):
        raise ConfigError(
            f"{name} is more than 0 seconds, at most {LONGEST:g}, or None; not {value!r}"
        )


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))
