"""The error of a task as Django shows it, whose class is one that is there already."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final, cast, final

from django.tasks.base import TaskError

__all__ = ["UpshotTaskError"]

_LONGEST: Final = 1000  # characters of a name that is looked up; the longest of Python's own has 40


@final
class UpshotTaskError(TaskError):
    """What a task has raised.

    Django imports the module that `exception_class_path` names. The path comes from the result
    backend, and a record chooses no module to import: here the class is looked for in the modules
    that this process has, where those of all tasks are.
    """

    __slots__ = ()

    @property
    def exception_class(self) -> type[BaseException]:
        """The class of the exception.

        Raises:
            ImportError: this process has no class of that name; `exception_class_path` has it.
            ValueError: what is called so is no class of exceptions.
        """
        path = self.exception_class_path
        found = _loaded(path)
        if not isinstance(found, type) or not issubclass(found, BaseException):
            raise ValueError(f"{path[:_LONGEST]!r} does not reference a valid exception.")
        return found


def _loaded(path: str) -> object:
    """Return what is called so, without a call of the module's own `__getattr__`."""
    names = path.split(".") if len(path) <= _LONGEST else []
    for length in range(len(names) - 1, 0, -1):
        found: object = sys.modules.get(".".join(names[:length]))
        for name in names[length:]:
            scope = cast("Any", found)
            found = vars(scope).get(name) if isinstance(scope, ModuleType | type) else None
        if found is not None:
            return found
    raise ImportError(
        f"no exception class {path[:_LONGEST]!r} is loaded in this process, and none is imported "
        "because a result names it: import its module first, or read exception_class_path"
    )
