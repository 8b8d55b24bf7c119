"""Tells observers how a task has ended on this worker."""

from __future__ import annotations

from upshot.engine.host import Host
from upshot.execution import Execution
from upshot.observing import Ended, tell
from upshot.record import Record

__all__ = ["tell_end"]


def tell_end(
    host: Host,
    execution: Execution | None,
    record: Record,
    why: BaseException | None = None,
) -> None:
    """Tell that the end of a task, or of an attempt, is stored.

    Args:
        host: the app's side.
        execution: the attempt; None for a message that could not be read.
        record: how it ended.
        why: what kept the task from being run, or cut it short; None if it came to its end.
    """
    if observers := host.observers:
        ended = Ended(
            message=execution and execution.message,
            state=record.state,
            attempt=record.attempt,
            worker=record.worker,
            run=execution and execution.observed,
            exception=why,
        )
        tell(observers, lambda each: each.ended(ended))
