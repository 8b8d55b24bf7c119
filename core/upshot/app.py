"""The app: where tasks are registered, and where they meet a broker and a result backend."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, final, overload

from upshot import forking
from upshot.configurable import Configurable
from upshot.errors import ConfigError
from upshot.naming import check_main
from upshot.url import Url

# An app takes little to make. What its first task, call or worker takes beyond that is most of
# upshot, and is imported there.
if TYPE_CHECKING:
    from upshot.broker import Broker
    from upshot.client import ResultClient
    from upshot.engine import Host
    from upshot.execution import AroundTask
    from upshot.observing import Observer
    from upshot.origin import Origin
    from upshot.registration import BoundDecorator, Decorator
    from upshot.request import Request
    from upshot.result import AsyncResult as Handle
    from upshot.result_set import ResultSet as HandleSet
    from upshot.serializers import Codecs
    from upshot.service import OpenService
    from upshot.services import Services
    from upshot.spec import TaskSpec
    from upshot.task import Task

__all__ = ["App"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class App(Configurable):
    """A set of tasks with one broker and one result backend.

    Nothing is opened before it is needed; everything is safe to use from any thread, and after a
    fork. An app is a context manager that closes what it opened.

    Args:
        main: the module name for tasks of a file that is run as a script. Python calls such a
            file `__main__`, while the worker imports it under its real name, and both must call
            each task the same. The file's own name is taken if you give none; so give it only
            for a script inside a package: `App("shop.jobs")` in `shop/jobs.py`.
        broker: URL of the message broker; None takes the setting `broker_url`.
        backend: URL of the result backend; None takes the setting `result_backend`.
        settings: any setting by its name; `upshot config` explains them all.

    Raises:
        ConfigError: a setting or its value is wrong, or `main` can be no module's name.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        **settings: Any,
    ) -> None:
        for name, url in (("broker_url", broker), ("result_backend", backend)):
            if url is not None:
                if name in settings:
                    raise ConfigError(f"{name} is given twice")
                settings[name] = url
        super().__init__(settings)
        self.main = check_main(main)
        self._tasks: dict[str, TaskSpec] = {}
        self._lock = threading.RLock()
        self.around_task: AroundTask = nullcontext
        """Makes what workers enter around each run of a task, on its thread; set it before that."""
        self.observers: list[Observer] = []
        """Who looks on; `observe` adds to them."""
        forking.register(self)

    def __repr__(self) -> str:
        return f"<App {self.main or ''} broker={self.broker_url} backend={self.backend_url}>"

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is open -----------------------------------------------------------------------------

    @property
    def broker_url(self) -> Url:
        """Where messages go; printing it does not show the password."""
        return self._services.broker_url

    @property
    def backend_url(self) -> Url:
        """Where results go: as set, or else the broker's own service."""
        return self._services.backend_url

    @property
    def _services(self) -> Services:
        """What is open, or will be."""
        made = self._services_made
        if made is None:
            from upshot.services import Services  # see at the top

            with self._lock:
                made = self._services_made
                if made is None:
                    made = self._services_made = Services(
                        self.settings, self.observers, annotation=self._returns, module=self._module
                    )
        return made

    def _returns(self, name: str) -> object:
        return self._tasks[name].returns if name in self._tasks else None

    def _module(self) -> str:
        named = (name.rpartition(".")[0] for name in self._tasks)
        return self.main or next(named, "your_module")

    @property
    def codecs(self) -> Codecs:
        """The serializers that this app accepts."""
        return self._services.codecs

    @property
    def results(self) -> ResultClient:
        """The open result backend."""
        return self._services.results

    @property
    def broker(self) -> OpenService[Broker]:
        """The open broker."""
        return self._services.broker

    @property
    def origin(self) -> Origin:
        """What this app's result handles need of it."""
        return self._services.origin

    def close(self) -> None:
        """Close broker and backend, if they were opened.

        The app's next use opens them again; a result handle made before stays closed.

        Raises:
            ConfigError: `running()` is not over: its worker needs what would be closed.
        """
        with self._lock:
            if self._running:
                raise ConfigError("leave app.running() before closing the app")
        if self._services_made is not None:
            self._services_made.close()

    def after_fork(self) -> None:
        """Renew the lock, which another thread may have held, and forget the parent's workers."""
        self._lock = threading.RLock()
        self._running = 0

    # -- tasks ------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """Every registered task by name."""
        return types.MappingProxyType(self._tasks)

    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Generator[T, Any, R]], /
    ) -> Task[P, R, Generator[T, Any, R]]: ...
    @overload
    def task(
        self, function: Callable[P, AsyncIterator[T]], /
    ) -> Task[P, None, AsyncIterator[T]]: ...
    @overload
    def task(self, function: Callable[P, Iterator[T]], /) -> Task[P, None, Iterator[T]]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Any) -> BoundDecorator: ...
    @overload
    def task(
        self,
        *,
        bind: Literal[False] = ...,
        name: str | None = ...,
        queue: str | None = ...,
        priority: int | None = ...,
        autoretry_for: tuple[type[BaseException], ...] = ...,
        max_retries: int | None = ...,
        retry_backoff: float = ...,
        retry_backoff_max: float = ...,
        retry_jitter: bool = ...,
        time_limit: float | None = ...,
        soft_time_limit: float | None = ...,
        ignore_result: bool = ...,
        result_expires: float | None = ...,
        serializer: str | None = ...,
    ) -> Decorator: ...
    def task(self, *function: Callable[..., Any], **options: Any) -> Any:
        """Register a function, `def` or `async def`, as a task: `@app.task` or `@app.task(…)`.

        What a function yields are items of a stream: `AsyncResult.stream()`.

        Options (each default is the setting of the same name, prefixed `task_`):

            bind: pass the `TaskContext` as first argument; callers do not give it.
            name: as which it is registered; by default `module.function`.
            queue, priority: where it waits.
            autoretry_for: exceptions after which it is run again.
            max_retries, retry_backoff, retry_backoff_max, retry_jitter: how often, how soon.
            time_limit, soft_time_limit: seconds; None for no limit.
            ignore_result: keep no record.
            result_expires: seconds to keep the outcome; None for ever.
            serializer: what encodes the result.

        Raises:
            ConfigError: an option is unknown or wrong, or the name is taken by another function.
        """
        from upshot import registration  # see at the top

        registration.check_options(options)
        register = functools.partial(
            registration.register,
            options=options,
            tasks=self._tasks,
            settings=self.settings,
            main=self.main,
            sender=self,
        )
        return register(function[0]) if function else register

    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Handle[Any]:
        """Send a task by name; its code need not be here. `options` are those of `apply_async`."""
        from upshot.registration import known_by  # see at the top

        task = known_by(name, tasks=self._tasks, settings=self.settings, sender=self)
        return task.apply_async(args, kwargs, **options)

    def send(self, requests: Sequence[Request]) -> list[Handle[Any]]:
        """Send all requests in one batch and return their handles, in order."""
        return self._services.send(requests)

    def forget_key(self, name: str, key: str) -> None:
        """Release the `key` of a task of that name before it expires; harmless if it is free.

        The next call with it sends a new task. The one that held it, and its result, stay as they
        are: give its handle a `revoke()` first if it may not run any more.

        Raises:
            ConfigError: one of the two is no name or no key.
            UnsupportedError: the backend keeps no keys.
            ServiceError: the backend could not do it.
        """
        self._services.forget_key(name, key)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of what is sent, run and read from now on; see `upshot.observing`.

        Raises:
            ConfigError: it is no `Observer`, or it observes this app already.
        """
        from upshot.observing import add_observer  # see at the top

        add_observer(observer, self.observers)

    # -- results ----------------------------------------------------------------------------------

    def AsyncResult(self, task_id: str) -> Handle[Any]:  # noqa: N802 - as in Celery
        """Return the handle of a task, from its id alone. Asks nobody.

        Raises:
            InvalidTaskIdError: the id may not name a task.
            UnsupportedError: its result can only be read by the process that submitted it.
        """
        return self._services.handle(task_id)

    def ResultSet(self, task_ids: Sequence[str]) -> HandleSet[Any]:  # noqa: N802 - as in Celery
        """Return the handles of many tasks, from their ids alone; as `AsyncResult`."""
        return self._services.handles(task_ids)

    def outstanding(self) -> list[Handle[Any]]:
        """Return the live handles of sent tasks that were neither read nor forgotten."""
        return list(self.origin.handles)

    # -- workers ----------------------------------------------------------------------------------

    def host(self) -> Host:
        """Return what a worker needs of this app, with services of its own, for it to close."""
        from upshot.engine import Host  # see at the top

        return Host(
            tasks=self.tasks,
            settings=self.settings,
            codecs=self.codecs,
            client=self._services.make_results(),
            broker=self._services.make_broker(),
            around_task=self.around_task,
            observers=self.observers,
            sealing=self._services.sealing,
        )

    @contextmanager
    def running(self, *, threads: int = 2, queues: Sequence[str] | None = None) -> Generator[App]:
        """Run a worker in threads of this process inside the `with` block.

        For scripts of one file and for tests. Leaving the block waits for running tasks; those
        that have not started stay in their queues. A hard time limit ends a task's record here,
        but cannot end its thread.

        Args:
            threads: tasks at once, 1 or more.
            queues: names; by default all that the app's tasks name.

        Raises:
            ConfigError: one of the two is something else.
        """
        from upshot.checks import check_queues, check_threads  # see at the top
        from upshot.engine import Consumer, in_background

        check_threads(threads)
        names = check_queues(queues) or self.queues()
        consumer = Consumer(self.host(), queues=names, threads=threads)
        self._running += 1
        try:
            with in_background(consumer, self.settings.worker_shutdown_timeout):
                yield self
        finally:
            self._running -= 1

    def queues(self) -> list[str]:
        """Return the default queue and every queue that a registered task names."""
        named = [spec.queue for spec in self._tasks.values() if spec.queue]
        return list(dict.fromkeys([self.settings.task_default_queue, *named]))
