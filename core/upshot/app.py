"""The app: where tasks are registered, and where they meet a broker and a result backend."""

from __future__ import annotations

import functools
import os
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, ParamSpec, TypeVar, final, overload

from upshot import clock, forking, registration, registry
from upshot.broker import Broker
from upshot.checks import check_main, check_queues, check_threads
from upshot.client import ResultClient
from upshot.config import Configuration
from upshot.engine import Consumer, Host
from upshot.errors import ConfigError, ServiceError, UnknownSchemeError
from upshot.execution import AroundTask, TaskSpec
from upshot.origin import Origin
from upshot.registration import BoundDecorator, Decorator, elsewhere, is_same_source, spec_of
from upshot.request import Request
from upshot.result import AsyncResult as Handle
from upshot.result_set import ResultSet as HandleSet
from upshot.sending import Outbox
from upshot.serializers import Codecs
from upshot.service import OpenService
from upshot.settings import Settings
from upshot.task import Task
from upshot.url import Url

__all__ = ["EMBEDDED", "App"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_LAST_GRACE = 2.0  # seconds for giving tasks back; their threads cannot be ended

EMBEDDED = "sqlite:///.upshot/upshot.db"
"""Broker and result backend when no URL is given: a file below the working directory."""


@final
class App:
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
        self.main = check_main(main)
        self.configuration = Configuration(settings)
        self._tasks: dict[str, TaskSpec] = {}
        self._opened: dict[str, Any] = {}
        self._running = 0
        self._lock = threading.RLock()
        self.around_task: AroundTask = nullcontext
        """Makes what workers enter around each run of a task, on its thread; set it before that."""
        forking.register(self)

    def __repr__(self) -> str:
        return f"<App {self.main or ''} broker={self.broker_url} backend={self.backend_url}>"

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- configuration ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The values in force."""
        return self.configuration.settings

    def config_from_object(self, source: str | types.ModuleType | Mapping[str, Any]) -> None:
        """Take settings from a module or mapping; keywords and environment win over them.

        Raises:
            ConfigError: a setting is unknown or wrong, or broker and backend are open already.
        """
        self._not_open()
        self.configuration.add_object(source)

    def config_from_file(self, path: str | os.PathLike[str]) -> None:
        """Take settings from a TOML file; otherwise like `config_from_object`."""
        self._not_open()
        self.configuration.add_file(path)

    def _not_open(self) -> None:
        if self._opened:
            raise ConfigError("configure the app before its first task is sent or result is read")

    @property
    def broker_url(self) -> Url:
        """Where messages go; printing it does not show the password."""
        return Url.parse(self.settings.broker_url or EMBEDDED)

    @property
    def backend_url(self) -> Url:
        """Where results go: as set, or else the broker's own service."""
        chosen = self.settings.result_backend
        if chosen is not None:
            return registry.results_url(Url.parse(chosen), self.broker_url)
        try:
            registry.backend_class(self.broker_url)
        except UnknownSchemeError:
            return Url.parse(EMBEDDED)
        return self.broker_url

    # -- what is open -----------------------------------------------------------------------------

    @property
    def codecs(self) -> Codecs:
        """The serializers that this app accepts."""
        return self._once("codecs", lambda: registry.codecs(self.settings))

    @property
    def results(self) -> ResultClient:
        """The open result backend."""
        return self._once("results", self._make_results)

    def _make_results(self) -> ResultClient:
        url, settings = self.backend_url, self.settings
        make = registry.backend_class(url)
        return ResultClient(
            lambda: make(url),
            url=url,
            namespace=settings.namespace,
            expires=settings.result_expires,
            timeout=settings.operation_timeout,
            max_bytes=settings.result_max_bytes,
        )

    @property
    def broker(self) -> OpenService[Broker]:
        """The open broker."""
        return self._once("broker", self._make_broker)

    def _make_broker(self) -> OpenService[Broker]:
        url, namespace = self.broker_url, self.settings.namespace
        make = registry.broker_class(url)
        return OpenService(
            lambda: make(url, namespace), url=url, timeout=self.settings.operation_timeout
        )

    @property
    def origin(self) -> Origin:
        """What this app's result handles need of it."""
        return self._once("origin", self._make_origin)

    def _make_origin(self) -> Origin:
        return Origin(
            self.results,
            self.codecs,
            annotation=lambda name: self._tasks[name].returns if name in self._tasks else None,
            missing_worker=self._missing_worker,
            patience=self.settings.no_worker_warning,
        )

    def close(self) -> None:
        """Close broker and backend, if they were opened.

        The app's next use opens them again; a result handle made before stays closed.

        Raises:
            ConfigError: `running()` is not over: its worker needs what would be closed.
        """
        with self._lock:
            if self._running:
                raise ConfigError("leave app.running() before closing the app")
            opened, self._opened = self._opened, {}
        for name in ("results", "broker"):
            if name in opened:
                opened[name].close()

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it; what is open renews itself."""
        self._lock = threading.RLock()
        self._running = 0

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """Return what is open under `name`, opened now if need be; one for all threads."""
        opened: T | None = self._opened.get(name)
        if opened is None:
            with self._lock:
                opened = self._opened.get(name)
                if opened is None:
                    opened = self._opened[name] = make()
        return opened

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
        registration.check_options(options)
        if not function:
            return functools.partial(self._register, options=options)
        return self._register(function[0], options)

    def _register(
        self, function: Callable[..., Any], options: dict[str, Any]
    ) -> Task[..., Any, Any]:
        spec = spec_of(function, options, settings=self.settings, main=self.main)
        name = spec.name
        taken = self._tasks.get(name)
        if taken is not None and not is_same_source(taken.function, function):
            raise ConfigError(f"two tasks are called {name!r}; give one another name=")
        self._tasks[name] = spec
        return Task(spec, self)

    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Handle[Any]:
        """Send a task by name; its code need not be here. `options` are those of `apply_async`."""
        spec = self._tasks.get(name) or elsewhere(name, self.settings)
        return Task[..., Any, Any](spec, self).apply_async(args, kwargs, **options)

    def send(self, requests: Sequence[Request]) -> list[Handle[Any]]:
        """Send all requests in one batch and return their handles, in order."""
        outbox = Outbox(self.settings, codecs=self.codecs, client=self.results, broker=self.broker)
        warn, origin = self.settings.warn_unreleased_results, self.origin
        return [
            Handle(message.task_id, origin, queue=message.queue).track(
                warn=warn and not message.ignore_result
            )
            for message in outbox.send(requests)
        ]

    # -- results ----------------------------------------------------------------------------------

    def AsyncResult(self, task_id: str) -> Handle[Any]:  # noqa: N802 - as in Celery
        """Return the handle of a task, from its id alone. Asks nobody.

        Raises:
            InvalidTaskIdError: the id may not name a task.
            UnsupportedError: its result can only be read by the process that submitted it.
        """
        origin = self.origin
        origin.require_here((task_id,))
        return Handle(task_id, origin)

    def ResultSet(self, task_ids: Sequence[str]) -> HandleSet[Any]:  # noqa: N802 - as in Celery
        """Return the handles of many tasks, from their ids alone; as `AsyncResult`."""
        self.origin.require_here(task_ids)
        return HandleSet(Handle(task_id, self.origin) for task_id in task_ids)

    def outstanding(self) -> list[Handle[Any]]:
        """Return the live handles of sent tasks that were neither read nor forgotten."""
        return list(self.origin.handles)

    # -- workers ----------------------------------------------------------------------------------

    def host(self) -> Host:
        """Return what a worker needs of this app, with services of its own, for it to close."""
        return Host(
            tasks=self.tasks,
            settings=self.settings,
            codecs=self.codecs,
            client=self._make_results(),
            broker=self._make_broker(),
            around_task=self.around_task,
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
        check_threads(threads)
        names = check_queues(queues) or self.queues()
        consumer = Consumer(self.host(), queues=names, threads=threads)
        thread = threading.Thread(target=consumer.run, name="upshot-worker", daemon=True)
        self._running += 1
        thread.start()
        try:
            yield self
        finally:
            consumer.stop()
            thread.join(self.settings.worker_shutdown_timeout)
            if thread.is_alive():  # a task that outlasts the grace goes back to its queue
                consumer.stop_cold()
                thread.join(_LAST_GRACE)
            self._running -= 1

    def queues(self) -> list[str]:
        """Return the default queue and every queue that a registered task names."""
        named = [spec.queue for spec in self._tasks.values() if spec.queue]
        return list(dict.fromkeys([self.settings.task_default_queue, *named]))

    def _missing_worker(self, queue: str) -> str | None:
        try:
            status = self.broker.call(
                lambda broker, seconds: broker.survey([queue], seconds),
                deadline=clock.Deadline(0),
            )[queue]
        except ServiceError:
            return None
        if status.workers is None or status.workers:
            return None
        where = self.main or next((n.rpartition(".")[0] for n in self._tasks), "your_module")
        return (
            f"no worker serves the queue {queue!r} at {self.broker_url}; "
            f"start one in another terminal: upshot -A {where} worker -Q {queue}"
        )
