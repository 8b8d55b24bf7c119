"""`upshot result`: what is known about one task; and removing what has expired."""

from __future__ import annotations

import click

from upshot.app import App
from upshot.cli.exits import FAILED, OK, TIMED_OUT
from upshot.cli.parameters import SECONDS, app_option, json_option
from upshot.cli.printing import (
    as_text,
    flush_output,
    safe,
    show_field,
    show_json,
    show_note,
    show_traceback,
)
from upshot.cli.report import Report
from upshot.cli.results.moments import short_span
from upshot.cli.results.source import Source, source_option
from upshot.cli.target import load
from upshot.clock import Deadline
from upshot.errors import ResultTimeoutError
from upshot.record import Record
from upshot.states import State

__all__ = ["prune", "result", "show"]

_NO_RECORD = (
    "there is no record of this id: it was never sent to these results, or its record has expired "
    "or was forgotten, or the task keeps none; with task_track_queued off it may still be waiting"
)


class _ById(click.Group):
    """Takes what is not one of its commands for the arguments of `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *self.get_help_option_names(ctx)}
        if args and args[0] not in known:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ById)
def result() -> None:
    """Print what is known about a task: `upshot result ID`. Or remove what has expired.

    `show` may be left out, unless the ID is the name of a command.
    """


@result.command()
@source_option
@click.argument("task_id", metavar="ID")
@click.option(
    "-t", "--timeout", type=SECONDS, help="Wait at most so long for its end; by default look once."
)
@click.option("--forget", is_flag=True, help="Delete the record after printing all of it.")
@json_option
def show(source: Source, task_id: str, timeout: float | None, forget: bool, as_json: bool) -> int:
    """Print what is known about the task ID.

    Exit codes: 0 it succeeded, or has not ended and no --timeout was given; 1 it failed or was
    revoked; 124 it did not end in time.
    """
    with source.open() as app:
        report = Report.of(app, task_id, _record(app, task_id, timeout))
        if as_json:
            show_json(report.to_data())
        else:
            _show(report)
        if forget and report.unreadable:
            show_note("it was not forgotten: not all of it could be shown; `forget` removes it")
        elif forget:
            flush_output()  # or a full disk, say, would be found out when the record has gone
            app.AsyncResult(task_id).forget()
    return _code(report, waited=timeout is not None)


@result.command()
@app_option
@json_option
def prune(target: str, as_json: bool) -> int:
    """Remove the records that have expired.

    Workers do so now and then, and no reader sees them meanwhile; this does it at once, in small
    batches. Most services remove what has expired by themselves: then there is nothing to do.
    """
    with load(target) as app:
        removed = app.results.prune()
    if as_json:
        show_json({"removed": removed})
    else:
        show_field("removed", str(removed))
    return OK


def _record(app: App, task_id: str, timeout: float | None) -> Record | None:
    """Return the terminal record if it comes in time, otherwise what there is."""
    if timeout:
        try:
            return app.results.wait(task_id, timeout=timeout)
        except ResultTimeoutError:
            # Whoever asked wants to know how far it is; but the time is up.
            return app.results.load(task_id, deadline=Deadline(0))
    return app.results.load(task_id)


def _code(report: Report, *, waited: bool) -> int:
    if report.has_failed:
        return FAILED
    return TIMED_OUT if waited and report.state != State.SUCCESS else OK


def _show(report: Report) -> None:
    fields = {
        "id": report.task_id,
        "state": report.state,
        "name": report.name,
        "queue": report.queue,
        "worker": report.worker,
        "attempts": str(report.attempts or ""),
        "queued at": report.queued_at,
        "started at": report.started_at,
        "finished at": report.finished_at,
        "took": None if report.took is None else short_span(report.took),
        "info": None if report.info is None else as_text(report.info),
        "items": None if report.items is None else str(report.items),
    }
    for label, text in fields.items():
        if text:
            show_field(label, safe(text))
    if report.state == State.SUCCESS and not report.unreadable:
        show_field("value", as_text(report.value))
    if report.failure is not None:
        show_field("failure", safe(report.outcome))
        show_traceback(report.failure.traceback, indent="  ")
    if report.unreadable:
        show_field("unreadable", report.unreadable)
    if report.state == State.PENDING:
        show_note(_NO_RECORD)
