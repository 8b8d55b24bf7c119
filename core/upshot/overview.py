"""What goes on in an app: workers that are alive, what waits in its queues, and tasks that run.

`upshot status` prints it, and the page of `upshot web` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, final

from upshot.app import App
from upshot.broker import QueueStatus
from upshot.errors import ServiceError, UnsupportedError
from upshot.record import Record
from upshot.states import State

__all__ = ["Overview", "WorkerStatus", "overview"]

_NOT_RUNNING: Final = frozenset({State.PENDING, State.QUEUED, State.RETRY})
_WORKER: Final = re.compile(r"(?P<host>.+):(?P<pid>\d+)", re.DOTALL)
_PROCESS: Final = re.compile(r"/\d+$")


@final
@dataclass(slots=True)
class WorkerStatus:
    """One worker: a supervisor with its processes, each of which gives its own signs of life.

    Attributes:
        name: what it has in records, without the number of a process.
        processes: their names.
        queues: those that it serves.
        running: how many of the running tasks are its own; 0, too, if these cannot be listed.
    """

    name: str
    processes: set[str] = field(default_factory=set[str])
    queues: list[str] = field(default_factory=list[str])
    running: int = 0

    @property
    def host(self) -> str | None:
        """The machine; None for a worker that was given a name."""
        place = _WORKER.fullmatch(self.name)
        return place and place["host"]

    @property
    def pid(self) -> int | None:
        """The process id of the supervisor; None for a worker that was given a name."""
        place = _WORKER.fullmatch(self.name)
        return place and int(place["pid"])


@final
@dataclass(slots=True, kw_only=True)
class Overview:
    """What could be seen at one moment.

    Attributes:
        queues: by name.
        workers: by name, in order; None if the broker does not tell.
        running: records of tasks that run, the oldest first; None if they cannot be listed.
        notes: what could not be seen, and why.
    """

    queues: dict[str, QueueStatus]
    workers: list[WorkerStatus] | None
    running: list[Record] | None
    notes: list[str]

    def is_alive(self, record: Record) -> bool | None:
        """Tell whether the worker of a task gives signs of life; None if nobody knows."""
        if self.workers is None:
            return None
        return any(record.worker in worker.processes for worker in self.workers)


def overview(app: App, queues: Sequence[str], *, records: int) -> Overview:
    """Look at an app once. A worker is alive until its last sign of life is as old as a lease.

    Args:
        app: whose broker and results these are.
        queues: their names.
        records: how many are looked at for running tasks, one by one; 0 does not look.

    Raises:
        UnsupportedError: messages are kept inside the process that sent them.
        ServiceError: the broker could not tell. Results that cannot be read are a note.
    """
    if not app.broker.current.capabilities.shared:
        raise UnsupportedError(
            f"{app.broker_url} keeps messages inside the process that sent them: from here "
            "there is nothing to see"
        )
    found = app.broker.call(lambda broker, seconds: broker.survey(queues, seconds))
    seen = {name: found[name] for name in queues}
    notes: list[str] = []
    if any(each.workers is None for each in seen.values()):
        notes.append(f"{app.broker_url} does not tell which workers there are")
    running = _running(app, set(queues), records, notes)
    return Overview(queues=seen, workers=_workers(seen, running), running=running, notes=notes)


def _running(app: App, names: set[str], most: int, notes: list[str]) -> list[Record] | None:
    """Return the records of tasks of these queues that run, the oldest first."""
    results = app.results
    if not most:
        return None
    if results.backend.reply_to:
        notes.append(
            f"{results.url} carries results to who sent the task: running tasks cannot be listed"
        )
        return None
    if not results.capabilities.shared:
        notes.append(f"{results.url} keeps records in the process that stores them")
        return None
    if not results.capabilities.scan:
        notes.append(f"{results.url} cannot list its records: running tasks cannot be shown")
        return None
    try:
        records = results.scan()
        found = [each for each in islice(records, most) if _is_running(each, names)]
        if next(records, None) is not None:
            notes.append(f"there are more than {most} records, of which not all were looked at")
    except ServiceError as exc:
        notes.append(f"running tasks cannot be listed: {exc}")
        return None
    return sorted(found, key=lambda each: each.started_at or 0.0)


def _is_running(record: Record, names: set[str]) -> bool:
    is_ours = not record.queue or record.queue in names
    return is_ours and not record.is_terminal and record.state not in _NOT_RUNNING


def _workers(
    queues: dict[str, QueueStatus], running: Sequence[Record] | None
) -> list[WorkerStatus] | None:
    if all(each.workers is None for each in queues.values()):
        return None
    workers: dict[str, WorkerStatus] = {}
    for queue, each in queues.items():
        for process in each.workers or ():
            name = _PROCESS.sub("", process)
            worker = workers.setdefault(name, WorkerStatus(name))
            worker.processes.add(process)
            if queue not in worker.queues:
                worker.queues.append(queue)
    for record in running or ():
        name = _PROCESS.sub("", record.worker)
        if name in workers:
            workers[name].running += 1
    return [workers[name] for name in sorted(workers)]
