"""`upshot status`: workers that are alive, what waits in queues, and the tasks that run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import click

from upshot import clock
from upshot.app import App
from upshot.broker import QueueStatus
from upshot.cli.exits import OK
from upshot.cli.parameters import SECONDS, app_option, json_option, queues_option
from upshot.cli.printing import clear_screen, show_json, show_note, show_table
from upshot.cli.target import load
from upshot.errors import ServiceError, UnsupportedError
from upshot.record import Record
from upshot.states import State

__all__ = ["status"]

_RECORDS: Final = 100_000
"""Records that are looked at, unless told otherwise: some seconds for a service nearby."""

_SHORTEST: Final = 0.1  # seconds between two looks

_NOT_RUNNING: Final = frozenset({State.PENDING, State.QUEUED, State.RETRY})
_WORKER: Final = re.compile(r"(?P<name>(?P<host>.+):(?P<pid>\d+))(?:/\d+)?", re.DOTALL)
_PROCESS: Final = re.compile(r"/\d+$")


@dataclass(slots=True)
class _Worker:
    """One worker: a supervisor with its processes, each of which gives its own signs of life."""

    name: str
    processes: set[str] = field(default_factory=set[str])
    queues: list[str] = field(default_factory=list[str])
    running: int = 0

    def to_data(self) -> dict[str, object]:
        place = _WORKER.fullmatch(self.name)
        return {
            "worker": self.name,
            "host": place and place["host"],
            "pid": place and int(place["pid"]),
            "processes": sorted(self.processes),
            "queues": self.queues,
            "running": self.running,
        }


@dataclass(slots=True, kw_only=True)
class _Picture:
    """What could be seen at one moment.

    Attributes:
        queues: by name.
        workers: None if the broker does not tell.
        running: records of tasks that run; None if they cannot be listed.
        notes: what could not be seen, and why.
    """

    queues: dict[str, QueueStatus]
    workers: list[_Worker] | None
    running: list[Record] | None
    notes: list[str]


@click.command()
@app_option
@queues_option
@click.option(
    "--records",
    type=click.IntRange(min=0),
    default=_RECORDS,
    show_default=True,
    help="Look for running tasks among so many records at most; 0 does not look.",
)
@click.option("--watch", type=SECONDS, metavar="SECONDS", help="Show it again and again.")
@json_option
def status(
    target: str, queues: tuple[str, ...], records: int, watch: float | None, as_json: bool
) -> int:
    """Show workers that are alive, queues with their lengths, and running tasks.

    A worker counts as alive until its last sign of life is as old as a lease (worker_lease).
    Running tasks are found by their records, and so only where records can be listed; a task that
    keeps none is not among them.
    """
    with load(target) as app:
        if not app.broker.current.capabilities.shared:
            raise UnsupportedError(
                f"{app.broker_url} keeps messages inside the process that sent them: from here "
                "there is nothing to see"
            )
        names = queues or tuple(app.queues())
        while True:
            picture = _picture(app, names, records)
            if watch is not None and not as_json:
                clear_screen()
            _print(picture, as_json)
            if watch is None:
                return OK
            clock.sleep(max(watch, _SHORTEST))


def _picture(app: App, names: Sequence[str], most: int) -> _Picture:
    found = app.broker.call(lambda broker, seconds: broker.survey(names, seconds))
    queues = {name: found[name] for name in names}
    notes: list[str] = []
    if any(each.workers is None for each in queues.values()):
        notes.append(f"{app.broker_url} does not tell which workers there are")
    running = _running(app, set(names), most, notes)
    return _Picture(queues=queues, workers=_workers(queues, running), running=running, notes=notes)


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
) -> list[_Worker] | None:
    if all(each.workers is None for each in queues.values()):
        return None
    workers: dict[str, _Worker] = {}
    for queue, each in queues.items():
        for process in each.workers or ():
            name = _PROCESS.sub("", process)
            worker = workers.setdefault(name, _Worker(name))
            worker.processes.add(process)
            if queue not in worker.queues:
                worker.queues.append(queue)
    for record in running or ():
        name = _PROCESS.sub("", record.worker)
        if name in workers:
            workers[name].running += 1
    return [workers[name] for name in sorted(workers)]


def _alive(record: Record, workers: Sequence[_Worker] | None) -> bool | None:
    """Tell whether the worker of a task gives signs of life; None if nobody knows."""
    if workers is None:
        return None
    return any(record.worker in worker.processes for worker in workers)


# -- printing --------------------------------------------------------------------------------------


def _print(picture: _Picture, as_json: bool) -> None:
    if as_json:
        show_json(_to_data(picture))
        return
    for title, header, rows in _tables(picture):
        show_table(title, header, rows, stacks=True)
        print()  # noqa: T201 - the command's output
    for note in picture.notes:
        show_note(note)


def _tables(picture: _Picture) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
    yield (
        "Queues",
        ("queue", "ready", "delayed", "at workers", "dead", "worker processes"),
        [
            (
                queue,
                str(each.ready),
                str(each.delayed),
                "?" if each.leased is None else str(each.leased),
                str(each.dead),
                "?" if each.workers is None else str(len(each.workers)),
            )
            for queue, each in picture.queues.items()
        ],
    )
    if picture.workers is not None:
        counts = "?" if picture.running is None else ""
        yield (
            "Workers alive" if picture.workers else "Workers alive: none",
            ("worker", "processes", "running", "queues"),
            [
                (
                    each.name,
                    str(len(each.processes)),
                    counts or str(each.running),
                    ", ".join(each.queues),
                )
                for each in picture.workers
            ],
        )
    if picture.running is not None:
        yield (
            "Running tasks" if picture.running else "Running tasks: none",
            ("id", "task", "queue", "state", "attempt", "for", "worker"),
            [
                (
                    each.task_id,
                    each.name,
                    each.queue,
                    each.state,
                    str(each.attempt),
                    _age(each),
                    each.worker
                    + ("" if _alive(each, picture.workers) is not False else "  (gone)"),
                )
                for each in picture.running
            ],
        )


def _age(record: Record) -> str:
    if record.started_at is None:
        return ""
    seconds = max(0.0, clock.now() - record.started_at)
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _to_data(picture: _Picture) -> dict[str, object]:
    return {
        "queues": [
            {
                "queue": queue,
                "ready": each.ready,
                "delayed": each.delayed,
                "leased": each.leased,
                "dead": each.dead,
                "workers": None if each.workers is None else list(each.workers),
            }
            for queue, each in picture.queues.items()
        ],
        "workers": picture.workers and [each.to_data() for each in picture.workers],
        "running": None
        if picture.running is None
        else [
            {
                "id": each.task_id,
                "name": each.name or None,
                "queue": each.queue or None,
                "state": each.state,
                "attempt": each.attempt,
                "worker": each.worker or None,
                "worker_alive": _alive(each, picture.workers),
                "started_at": _iso(each.started_at),
                "seconds": each.started_at and max(0.0, clock.now() - each.started_at),
            }
            for each in picture.running
        ],
        "notes": picture.notes,
    }


def _iso(seconds: float | None) -> str | None:
    moment = clock.to_datetime(seconds)
    return None if moment is None else moment.isoformat()
