"""A task: a function that can also be called somewhere else, later."""

from __future__ import annotations

import sys
import uuid
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from pathlib import Path
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, final

from upshot import clock
from upshot.context import TaskContext, running
from upshot.errors import ConfigError
from upshot.message import RetryPolicy
from upshot.request import Request
from upshot.spec import TaskSpec
from upshot.yielding import in_context, in_context_async

# Whoever declares tasks may send none: handles, and the services behind them, come with the first.
if TYPE_CHECKING:
    from upshot.result import AsyncResult
    from upshot.result_set import ResultSet

__all__ = ["Sender", "Task", "name_of", "to_seconds"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class Sender(Protocol):
    """What a task needs of its app."""

    def send(self, requests: Sequence[Request]) -> list[AsyncResult[Any]]:
        """Send all requests in one batch and return their handles, in order."""
        ...


@final
class Task(Generic[P, R, C]):
    """A registered function. `R` is what its result is, `C` what calling it here returns.

    Args:
        spec: what workers run.
        sender: the app.
    """

    def __init__(self, spec: TaskSpec, sender: Sender) -> None:
        self.spec = spec
        self._sender = sender
        self.__doc__ = spec.function.__doc__
        self.__name__ = spec.function.__name__
        self.__wrapped__ = spec.function

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    @property
    def name(self) -> str:
        """The name that messages call the task by."""
        return self.spec.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Run the function here and now, as if it were no task. Nothing is sent or stored."""
        spec = self.spec
        context = TaskContext(task_id=uuid.uuid4().hex, name=spec.name, headers={}, is_direct=True)
        with running(context):
            value = spec.function(*((context, *args) if spec.bind else args), **kwargs)
        if isinstance(value, GeneratorType):
            value = in_context(cast("Generator[Any, Any, Any]", value), context)
        elif isinstance(value, AsyncGeneratorType):
            value = in_context_async(cast("AsyncGenerator[Any, Any]", value), context)
        return cast("C", value)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments to its queue; returns at once."""
        return self._send([Request(name=self.name, spec=self.spec, args=args, kwargs=kwargs)])[0]

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        queue: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
        headers: Mapping[str, Any] | None = None,
        result_expires: float | None = -1.0,
        ignore_result: bool | None = None,
        time_limit: float | None = -1.0,
        soft_time_limit: float | None = -1.0,
        retry: RetryPolicy | None = None,
        serializer: str | None = None,
        key: str | None = None,
        key_expires: float | None = -1.0,
    ) -> AsyncResult[R]:
        """Send the task, with choices for this one call.

        Args:
            args, kwargs: for the function.
            task_id: 1 to 255 bytes of text; None makes a random one. Of several messages with one
                id, one is run.
            queue: None for the task's own.
            countdown: seconds from now before which it does not start.
            eta: the same as an aware datetime; give one of the two.
            expires: seconds from now, or an aware datetime, after which it is not started but
                REVOKED; None for never.
            priority: 0 to 9, larger first; None for the task's own.
            headers: plain JSON values, seen in the task as `current_task().headers`.
            result_expires: seconds to keep the outcome; None for ever; -1 as the task is set.
            ignore_result: True keeps no record; None as the task is set.
            time_limit, soft_time_limit: seconds; None for no limit; -1 as the task is set.
            retry: how often and how soon a failed attempt is repeated; None as the task is set.
            serializer: for the arguments; None as the app is set.
            key: what makes a repetition of this call known as one: 1 to 255 bytes of text. The
                first call with it sends the task; the others send nothing and return the handle of
                that task, whatever their arguments are and whether it waits, runs or has ended.
                Each task has keys of its own. None sends in any case.
            key_expires: seconds from now for which the key stays taken; None for ever; -1 as the
                app is set.

        Raises:
            EncodeError: an argument cannot be encoded; the error's path says which part.
            ConfigError, InvalidTaskIdError, PayloadTooLargeError: a choice is wrong, such as a key
                for a task that keeps no result.
            UnsupportedError: a key is given, and the backend cannot keep it: `rpc://`.
            ServiceError: broker or backend could not take it.
        """
        request = Request(
            name=self.name,
            spec=self.spec,
            args=args,
            kwargs=kwargs or {},
            task_id=task_id,
            queue=queue,
            countdown=countdown,
            eta=to_seconds(eta, "eta"),
            expires=to_seconds(expires, "expires"),
            priority=priority,
            headers=headers,
            result_expires=result_expires,
            ignore_result=ignore_result,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            retry=retry,
            serializer=serializer,
            key=key,
            key_expires=key_expires,
        )
        return self._send([request])[0]

    def map(self, items: Iterable[Any]) -> ResultSet[R]:
        """Send one task per item, in one batch; a tuple is spread over the parameters.

        Returns the handles in the order of the items.
        """
        from upshot.result_set import ResultSet  # see at the top

        requests = [Request(name=self.name, spec=self.spec, args=_spread(item)) for item in items]
        return ResultSet(self._send(requests))

    def _send(self, requests: Sequence[Request]) -> list[AsyncResult[R]]:
        return cast("list[AsyncResult[R]]", self._sender.send(requests))


def _spread(item: Any) -> tuple[Any, ...]:
    if isinstance(item, tuple):
        return tuple(cast("Iterable[Any]", item))
    return (item,)


def name_of(function: Callable[..., Any], main: str | None) -> str:
    """Return the name under which `function` is registered: `module.qualified_name`.

    A script that is run is called `__main__`, but a worker imports the same file under its real
    name. So `__main__` is replaced by `main`; if that is None, by the name that the file would
    have as a module.
    """
    module = function.__module__
    if module == "__main__":
        module = main or _main_module()
    return f"{module}.{function.__qualname__.replace('<locals>.', '')}"


def _main_module() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        name = str(spec.name)
        return name.removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    return Path(path).stem if path else "__main__"


def to_seconds(moment: float | datetime | None, what: str) -> float | None:
    """Return a datetime as seconds since the epoch, and a number of seconds counted from now.

    Raises:
        ConfigError: the datetime has no zone, so it is not known which moment it means.
    """
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        return clock.now() + moment
    if moment.tzinfo is None:
        raise ConfigError(f"{what} needs a zone: datetime.now(timezone.utc) + …, not {moment!r}")
    return moment.timestamp()
