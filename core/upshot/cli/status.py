"""`upshot status`: workers that are alive, what waits in queues, and the tasks that run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click

from upshot import clock
from upshot.cli.exits import OK
from upshot.cli.parameters import SECONDS, app_option, json_option, queues_option
from upshot.cli.printing import clear_screen, show_json, show_note, show_table
from upshot.cli.target import load
from upshot.overview import Overview, WorkerStatus, overview
from upshot.record import Record

__all__ = ["status"]

_RECORDS: Final = 100_000
"""Records that are looked at, unless told otherwise: some seconds for a service nearby."""

_SHORTEST: Final = 0.1  # seconds between two looks


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
        names = queues or tuple(app.queues())
        while True:
            picture = overview(app, names, records=records)
            if watch is not None and not as_json:
                clear_screen()
            _print(picture, as_json)
            if watch is None:
                return OK
            clock.sleep(max(watch, _SHORTEST))


# -- printing --------------------------------------------------------------------------------------


def _print(picture: Overview, as_json: bool) -> None:
    if as_json:
        show_json(_to_data(picture))
        return
    for title, header, rows in _tables(picture):
        show_table(title, header, rows, stacks=True)
        print()  # noqa: T201 - the command's output
    for note in picture.notes:
        show_note(note)


def _tables(picture: Overview) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
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
                    each.worker + ("" if picture.is_alive(each) is not False else "  (gone)"),
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


def _to_data(picture: Overview) -> dict[str, object]:
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
        "workers": picture.workers and [_worker(each) for each in picture.workers],
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
                "worker_alive": picture.is_alive(each),
                "started_at": _iso(each.started_at),
                "seconds": each.started_at and max(0.0, clock.now() - each.started_at),
            }
            for each in picture.running
        ],
        "notes": picture.notes,
    }


def _worker(worker: WorkerStatus) -> dict[str, object]:
    return {
        "worker": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "processes": sorted(worker.processes),
        "queues": worker.queues,
        "running": worker.running,
    }


def _iso(seconds: float | None) -> str | None:
    moment = clock.to_datetime(seconds)
    return None if moment is None else moment.isoformat()
