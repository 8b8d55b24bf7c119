"""A consumer in threads of a process that does something else: for `app.running()`."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from upshot.engine.consumer import Consumer

__all__ = ["in_background"]

_LAST_GRACE: Final = 2.0  # seconds for giving tasks back; their threads cannot be ended


@contextmanager
def in_background(consumer: Consumer, grace: float) -> Generator[None]:
    """Run `consumer` inside the `with` block; leaving it waits for running tasks.

    Args:
        consumer: what to run.
        grace: seconds after which a running task goes back to its queue.
    """
    thread = threading.Thread(target=consumer.run, name="upshot-worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(grace)
        if thread.is_alive():
            consumer.stop_cold()
            thread.join(_LAST_GRACE)
