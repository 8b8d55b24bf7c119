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
