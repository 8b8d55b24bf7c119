"""Workers and queues as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from upshot.broker import QueueStatus
from upshot.cli.printing import safe
from upshot.overview import Overview
from upshot.record import Record, printable
from upshot_contrib.web.presenting import Moment, kind_of

__all__ = ["Running", "Summary"]

_SHOWN: Final = 100  # running tasks on the page


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One task that runs.

    Attributes:
        task_id, name, queue, state, worker: printable.
        link: the id as it is.
        kind: the class of the state's colours.
        attempt: 1 for the first.
        since: when that began; None if it is not known.
        is_lost: whether its worker gives no sign of life.
    """

    task_id: str
    link: str
    name: str
    queue: str
    state: str
    kind: str
    worker: str
    attempt: int
    since: Moment | None
    is_lost: bool

    @classmethod
    def of(cls, record: Record, *, is_lost: bool) -> Running:
        """Return what is shown of a record."""
        return cls(
            task_id=printable(record.task_id),
            link=record.task_id,
            name=printable(record.name),
            queue=printable(record.queue),
            state=printable(record.state),
            kind=kind_of(record.state),
            worker=printable(record.worker),
            attempt=record.attempt,
            since=Moment.of(record.started_at),
            is_lost=is_lost,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What goes on, at one moment.

    Attributes:
        queues: name, as a link has it, and what the broker says of it.
        workers: name, number of processes, running tasks or None, queues; None if nobody tells.
        running: the oldest first; None if they cannot be listed.
        count: how many run; None likewise.
        waiting: messages that could be delivered now, or later, in all queues.
        dead: messages that were buried.
        notes: what could not be seen, and why.
    """

    queues: list[tuple[str, str, QueueStatus]]
    workers: list[tuple[str, int, int | None, list[str]]] | None
    running: list[Running] | None
    count: int | None
    waiting: int
    dead: int
    notes: list[str]

    @classmethod
    def of(cls, found: Overview) -> Summary:
        """Return what is shown of an overview."""
        running = found.running
        return cls(
            queues=[(printable(name), name, each) for name, each in found.queues.items()],
            workers=None
            if found.workers is None
            else [
                (
                    printable(each.name),
                    len(each.processes),
                    None if running is None else each.running,
                    list(map(printable, each.queues)),
                )
                for each in found.workers
            ],
            running=None
            if running is None
            else [
                Running.of(record, is_lost=found.is_alive(record) is False)
                for record in running[:_SHOWN]
            ],
            count=None if running is None else len(running),
            waiting=sum(each.ready + each.delayed for each in found.queues.values()),
            dead=sum(each.dead for each in found.queues.values()),
            notes=list(map(safe, found.notes)),
        )
