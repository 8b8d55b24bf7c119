"""upshot runs Python functions as tasks and brings their results home.

from upshot import App

app = App()

@app.task
def add(x: int, y: int) -> int:
    return x + y

with app.running():
    print(add.delay(2, 3).get(timeout=10))
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` has it too, and takes longer to import than all of this
if TYPE_CHECKING:
    from upshot.app import App
    from upshot.context import TaskContext, current_task
    from upshot.errors import UpshotError
    from upshot.message import RetryPolicy
    from upshot.result import AsyncResult
    from upshot.result_set import ResultSet
    from upshot.states import State
    from upshot.task import Task

__all__ = [
    "App",
    "AsyncResult",
    "ResultSet",
    "RetryPolicy",
    "State",
    "Task",
    "TaskContext",
    "UpshotError",
    "current_task",
]

_HOMES = {
    "App": "app",
    "AsyncResult": "result",
    "ResultSet": "result_set",
    "RetryPolicy": "message",
    "State": "states",
    "Task": "task",
    "TaskContext": "context",
    "UpshotError": "errors",
    "current_task": "context",
}


if not TYPE_CHECKING:  # for a checker, a module with this function has every name

    def __getattr__(name: str) -> object:
        """Import a name of `__all__`, or its module, when it is first asked for (PEP 562)."""
        home = _HOMES.get(name, name)
        if home not in _HOMES.values():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # takes longer to import than all of this, too

        module = import_module(f"{__name__}.{home}")
        value = module if name == home else getattr(module, name)
        globals()[name] = value  # so this is not called for it again
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
