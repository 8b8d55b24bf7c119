"""`upshot -A tasks result ID`: never hangs."""

from __future__ import annotations

import sys
from typing import Any

import click

from upshot.cli.printing import print_json, print_lines
from upshot.cli.target import app_option, load_app
from upshot.result import AsyncResult
from upshot.states import State

__all__ = ["command", "show"]

_PENDING = "no record: never sent, sent without one, expired, or forgotten"


@click.command("result")
@app_option
@click.argument("task_id", metavar="ID")
@click.option("-t", "--timeout", type=click.FloatRange(0), help="Wait at most so many seconds.")
@click.option("--forget", is_flag=True, help="Delete the record after printing it.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def command(
    ctx: click.Context,
    target: str | None,
    task_id: str,
    timeout: float | None,
    forget: bool,
    as_json: bool,
) -> None:
    """Show what is known of a task. Without -t it looks once and does not wait.

    Exit code: 0, or 1 if the task failed or was revoked, or 124 if it did not end within -t.
    """
    handle = load_app(ctx, target).AsyncResult(task_id)
    if timeout is not None:
        handle.get(timeout, propagate=False)
    code = show(handle, as_json=as_json)
    if forget:
        handle.forget()
    sys.exit(code)


def show(handle: AsyncResult[Any], *, as_json: bool) -> int:
    """Print everything about a task, from one read of its record; return the exit code."""
    record = handle.origin.client.load(handle.id)
    if record is not None:
        handle = handle.holding(record)
    found = handle.result if record is not None and record.is_terminal else None
    state = State.PENDING if record is None else record.state
    failure = found if isinstance(found, Exception) and state != State.SUCCESS else None
    facts: dict[str, Any] = {"id": handle.id, "state": str(state)}
    if record is None:
        facts["meaning"] = _PENDING
    else:
        facts |= {
            "name": record.name,
            "queue": record.queue,
            "worker": record.worker,
            "attempts": handle.attempts,
            "queued": handle.queued_at and handle.queued_at.isoformat(),
            "started": handle.started_at and handle.started_at.isoformat(),
            "finished": handle.finished_at and handle.finished_at.isoformat(),
            "progress": handle.info,
        }
    if state == State.SUCCESS:
        facts["value"] = found if as_json else repr(found)
    elif failure is not None:
        facts["error"] = f"{type(failure).__name__}: {failure}"
    if record is not None and record.outcome is not None and state != State.SUCCESS:
        facts["traceback"] = handle.traceback
    if as_json:
        print_json(facts)
    else:
        trace = facts.pop("traceback", None)
        print_lines(facts.items())
        print_lines([("traceback", f"\n{trace}" if trace else None)])
    return 1 if state in (State.FAILURE, State.REVOKED) else 0
