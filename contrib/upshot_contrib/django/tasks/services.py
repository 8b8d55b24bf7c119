"""The app of each alias in TASKS: its broker, its result backend, and the tasks that it runs.

An alias without OPTIONS has the project's app, the one that `UPSHOT` describes. With OPTIONS it has
an app of its own, of which `UPSHOT` gives what OPTIONS do not.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from django.conf import settings
from django.tasks import DEFAULT_TASK_QUEUE_NAME, task_backends
from django.tasks.base import Task

from upshot import App, forking
from upshot.errors import ConfigError
from upshot.message import is_name
from upshot_contrib.django.around import as_a_request
from upshot_contrib.django.serving import Served
from upshot_contrib.django.settings import NAME, make_app
from upshot_contrib.django.tasks.known import KNOWN, UpshotTask
from upshot_contrib.django.tasks.running import runner

__all__ = ["app_of", "apps_of_project"]

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task  # generic for type checkers only


@final
class _Apps:
    """Apps by alias, each with what it was made from; the project's app is ""."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[object, App]] = {}
        self._lock = threading.Lock()
        forking.register(self)

    def after_fork(self) -> None:
        """Renew the lock, which another thread may have held."""
        self._lock = threading.Lock()

    def of(self, alias: str) -> App:
        """Return the app of an alias. Opens nothing.

        Raises:
            ImproperlyConfigured: its OPTIONS, or `UPSHOT`, are wrong.
            InvalidTaskBackend: TASKS has no such alias.
        """
        options = task_backends[alias].options
        if not options:
            from upshot_contrib.django.app import app  # reads Django's settings

            return self._kept("", None, lambda: app)
        source = (options, getattr(settings, NAME, None))
        return self._kept(alias, source, lambda: _made_with(alias, options))

    def register(self, task: _Task) -> None:
        """Register a task that was not known before, on every app there is."""
        with self._lock:
            for _, app in self._made.values():
                _register(app, task)

    def _kept(self, alias: str, source: object, make: Callable[[], App]) -> App:
        kept = self._made.get(alias)
        if kept is not None and kept[0] == source:
            return kept[1]
        with self._lock:
            kept = self._made.get(alias)
            if kept is not None and kept[0] == source:
                return kept[1]
            app = make()
            self._made[alias] = (copy.deepcopy(source), app)  # settings may be changed in place
            for task in KNOWN:
                _register(app, task)
        if kept is not None:  # the settings have changed, as they do in tests
            with contextlib.suppress(ConfigError):
                kept[1].close()
        return app


def _made_with(alias: str, options: Mapping[str, Any]) -> App:
    app = make_app(options, where=f"TASKS[{alias!r}]['OPTIONS']")
    app.around_task = as_a_request
    return app


def _register(app: App, task: _Task) -> None:
    """Let the app's workers run a task, unless it is of another backend and no message can be."""
    name, queue = task.module_path, task.queue_name
    if name not in app.tasks and is_name(name) and is_name(queue):
        app.task(name=name, bind=True, queue=queue)(runner(app, task))


_APPS: Final = _Apps()
KNOWN.tell(_APPS.register)


def app_of(alias: str) -> App:
    """Return the app of an alias in TASKS: as often as it is asked, the same one. Opens nothing.

    Raises:
        ImproperlyConfigured: its OPTIONS, or `UPSHOT`, are wrong.
        InvalidTaskBackend: TASKS has no such alias.
    """
    return _APPS.of(alias)


def apps_of_project() -> list[Served]:
    """Return every app that something can be sent to, each once; the project's own comes first.

    That one is among them if it has tasks of its own (`@app.task`), if an alias without OPTIONS
    shares it, or if there is no other.

    Raises:
        ImproperlyConfigured: OPTIONS of an alias, or `UPSHOT`, are wrong.
    """
    from upshot_contrib.django.app import app as own  # reads Django's settings

    served: dict[str, App] = {}
    queues: dict[str, list[str]] = {}
    aliases = list(_aliases())
    if not aliases or any(KNOWN.find(name) is None for name in own.tasks):
        served[NAME], queues[NAME] = own, _own_queues(own)
    for alias in aliases:
        app = app_of(alias)
        name = NAME if app is own else alias
        served[name] = app
        queues.setdefault(name, _own_queues(own) if app is own else []).extend(_queues_of(alias))
    return [
        Served(name=name, app=app, queues=tuple(dict.fromkeys(queues[name])))
        for name, app in sorted(served.items(), key=lambda item: item[0] != NAME)
    ]


def _own_queues(own: App) -> list[str]:
    """Return the queues that the project's own app has besides those of aliases."""
    specs = [spec for spec in own.tasks.values() if KNOWN.find(spec.name) is None]
    return [own.settings.task_default_queue, *(spec.queue for spec in specs if spec.queue)]


def _aliases() -> Iterator[str]:
    """Yield the aliases in TASKS that are ours."""
    for alias in task_backends:
        if task_backends[alias].task_class is UpshotTask:
            yield alias


def _queues_of(alias: str) -> Iterable[str]:
    """Return the queues that an alias allows; where it allows all, those that its tasks name."""
    named = task_backends[alias].queues
    if named:
        return sorted(filter(is_name, named))  # of what is no name, the checks tell
    return [DEFAULT_TASK_QUEUE_NAME, *(task.queue_name for task in KNOWN if task.backend == alias)]
