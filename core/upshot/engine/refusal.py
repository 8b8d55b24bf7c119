"""Why a task must not be run."""

from __future__ import annotations

from upshot import clock
from upshot.engine.host import Host
from upshot.engine.settling import shown
from upshot.errors import TaskError, TaskExpiredError, UnknownTaskError, WorkerLostError
from upshot.message import Message

__all__ = ["lost", "refusal"]


def refusal(host: Host, message: Message, *, is_lethal: bool) -> TaskError | None:
    """Return why the task must not run, None if it may.

    Args:
        host: the app's side.
        message: what asks for the run.
        is_lethal: it has taken as many workers down with it as may be.
    """
    if message.expires is not None and clock.now() > message.expires:
        return TaskExpiredError(f"{message.name} expired before it was started")
    if is_lethal:
        return lost(shown(message.name), host.settings.task_max_deliveries)
    if message.name not in host.tasks:
        known = ", ".join(sorted(host.tasks)) or "none"
        return UnknownTaskError(f"this worker has no task {shown(message.name)!r}; it has: {known}")
    return None


def lost(what: str, limit: int) -> WorkerLostError:
    """Return the end of a task that has taken `limit` workers down with it."""
    return WorkerLostError(f"{what} ended {limit} workers that ran it")
