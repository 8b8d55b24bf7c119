"""What is registered under a task's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from upshot.message import RetryPolicy

__all__ = ["TaskSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A function, and all that was said about it where it was registered.

    Attributes:
        name: how messages call it.
        function: `def` or `async def`.
        bind: whether the function takes the `TaskContext` first.
        queue: where its messages go; None for the app's default.
        priority: 0 to 9; None for the app's default.
        autoretry_for: exceptions that repeat the attempt.
        retry: how often and how soon.
        time_limit: seconds, None for no limit; likewise `soft_time_limit`.
        ignore_result: True writes no record.
        result_expires: seconds to keep the outcome; None for ever.
        serializer: what encodes its result; None for the app's default.
        streams: whether the function is a generator: what it yields are items of a stream.
        returns: the return annotation; None if there is none. Of a generator, a `Generator[…]`.
        parameters: annotations by parameter name.
    """

    name: str
    function: Callable[..., Any]
    bind: bool = False
    queue: str | None = None
    priority: int | None = None
    autoretry_for: tuple[type[BaseException], ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool = False
    result_expires: float | None = None
    serializer: str | None = None
    streams: bool = False
    returns: object = None
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
