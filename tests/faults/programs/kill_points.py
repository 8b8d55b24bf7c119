"""A layer above any result backend that kills its process at chosen points of a task's life.

The point is what a task's id begins with. Each task kills one process: the next one that has it
goes on. Entry points of the scheme `deadly+redis` and so on name `Over_redis`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upshot import registry
from upshot.backend import Backend, StoredRecord
from upshot.states import State, is_terminal
from upshot.url import Url
from upshot_conformance.layer import Layer

PREFIX = "deadly+"
_LOOK = 0.005  # seconds between two looks at the ledger


class Deadly(Layer):
    """Dies before or after it stores what begins a task, and what ends it."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        (record,) = records
        point = record.task_id.partition(".")[0]
        if record.state == State.STARTED and point == "received":
            die(record.task_id)
        if record.state == State.STARTED and point == "running":
            threading.Thread(target=die_in_the_body, args=(record.task_id,), daemon=True).start()
        if is_terminal(record.state) and point == "returned":
            die(record.task_id)
        answers = super().store(records, timeout)
        if record.state == State.STARTED and point == "started":
            die(record.task_id)
        if is_terminal(record.state) and point == "stored":
            die(record.task_id)
        return answers


def die(task_id: str) -> None:
    """End this process, unless this task has ended one already; write down when."""
    ledger = Path(os.environ["LEDGER"])
    try:
        with ledger.with_name(f"died-{task_id}").open("x") as file:
            file.write(repr(time.monotonic()))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_body(task_id: str) -> None:
    """End this process once the ledger knows the task."""
    ledger = Path(os.environ["LEDGER"])
    while f"{task_id} begins" not in ledger.read_text():
        time.sleep(_LOOK)
    die(task_id)


def _over(scheme: str) -> type[Backend]:
    """Return the layer above the backend of a scheme."""
    backend = registry.backend_class(Url.parse(f"{scheme}://"))

    def init(self: Any, url: Url) -> None:
        Deadly.__init__(self, backend(Url.parse(url.driver_url(scheme))))

    declared = {
        "__init__": init,
        "contract": backend.contract,
        "driver_errors": backend.driver_errors,
        "over_broker": backend.over_broker,
    }
    return type("Deadly", (Deadly,), declared)


def entry_point(scheme: str) -> dict[str, str]:
    """Return what a distribution must offer for this layer above a scheme."""
    return {PREFIX + scheme: f"kill_points:Over_{scheme.replace('+', '__')}"}


def __getattr__(name: str) -> type[Backend]:
    """Make `Over_redis` and so on when its entry point is loaded."""
    word, _, scheme = name.partition("_")
    if word != "Over":
        raise AttributeError(name)
    return _over(scheme.replace("__", "+"))
