"""The tasks that this process knows. No message and no record makes it import another one.

A task is known once the module that declares it was imported: Django imports the module `tasks` of
every installed app. What arrives from outside is a name, looked up here; a name that nobody
declared is refused, whatever can be imported under it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast, final

from django.tasks.base import Task

__all__ = ["KNOWN", "KnownTasks", "UpshotTask"]

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task  # generic for type checkers only

_Register = Callable[[_Task], object]
"""Is given every known task."""


@final
class KnownTasks:
    """Tasks by their module path: the function's module and qualified name."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._registers: list[_Register] = []

    def __iter__(self) -> Iterator[_Task]:
        return iter(list(self._tasks.values()))

    def add(self, task: _Task) -> None:
        """Know a task from now on; of its variants (`using`), the one that was declared first."""
        known = self._tasks.get(task.module_path)
        if known is None or known.func is not task.func:  # its module was imported again
            self._tasks[task.module_path] = task
            for register in list(self._registers):
                register(task)

    def add_declared(self, modules: Iterable[str]) -> None:
        """Know every task that one of these modules declares, whatever its backend."""
        for name in modules:
            for value in list(vars(importlib.import_module(name)).values()):
                if isinstance(value, Task):
                    self.add(cast("_Task", value))

    def find(self, path: str) -> _Task | None:
        """Return the task of that module path; None if this process has not declared it."""
        return self._tasks.get(path)

    def tell(self, register: _Register) -> None:
        """Call `register` with each task that becomes known from now on."""
        self._registers.append(register)


KNOWN: Final = KnownTasks()
"""Those of this process."""


@final
class UpshotTask(_Task):
    """A task that is known as soon as it is declared. Django makes it in `@task`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        KNOWN.add(self)
