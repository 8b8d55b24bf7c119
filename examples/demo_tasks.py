"""The app and the tasks of `demo.py`, which starts a worker for them.

The worker imports this file under the name `demo_tasks`, and so does the demo: both must call
each task, and each exception class, the same.
"""

from __future__ import annotations

import asyncio
import time

from upshot import App, TaskContext

__all__ = ["OutOfStockError", "add", "app", "count_to", "greet", "order", "square"]

app = App(no_worker_warning=None)  # the demo starts one; on a slow machine that takes seconds


class OutOfStockError(Exception):
    """Fewer are left than were ordered.

    Attributes:
        item: what was ordered.
        left: how many there are.
    """

    def __init__(self, item: str, *, left: int) -> None:
        super().__init__(f"only {left} of {item!r} left")
        self.item = item
        self.left = left


@app.task
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


@app.task
def order(item: str, count: int) -> str:
    """Order something, of which there are never more than three."""
    if count > 3:
        raise OutOfStockError(item, left=3)
    return f"{count} of {item}"


@app.task
async def greet(name: str) -> str:
    """Greet somebody, as a coroutine."""
    await asyncio.sleep(0.01)
    return f"Hello, {name}!"


@app.task(bind=True)
def count_to(context: TaskContext, total: int) -> int:
    """Count slowly and say how far it is; `bind=True` passes the context."""
    for done in range(1, total + 1):
        context.progress(done, total)
        time.sleep(0.1)
    return total


@app.task
def square(number: int) -> int:
    """Return the square."""
    return number * number
