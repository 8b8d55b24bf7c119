"""`upshot results forget` and `prune`: the end of records."""

from __future__ import annotations

import click

from upshot import clock
from upshot.cli.exits import OK
from upshot.cli.parameters import json_option
from upshot.cli.printing import show_field, show_json, show_note, show_parts
from upshot.cli.results.filters import states_option
from upshot.cli.results.moments import SPAN
from upshot.cli.results.source import Source, source_option
from upshot.client import ResultClient
from upshot.errors import UpshotError
from upshot.inventory import PRUNED, Filter, Pruned
from upshot.inventory import prune as prune_records
from upshot.masking import mask
from upshot.record import Record, check_task_id
from upshot.states import State

__all__ = ["forget", "prune"]


@click.command()
@source_option
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def forget(source: Source, task_ids: tuple[str, ...], as_json: bool) -> int:
    """Delete the records of the tasks, and all that belongs to them.

    A task that has not ended runs on, and its outcome is stored all the same. One that was revoked
    and still waits in its queue is run then.
    """
    ids = list(dict.fromkeys(map(check_task_id, task_ids)))
    with source.open() as app:
        found = dict(zip(ids, app.results.load_many(ids), strict=True))
        app.results.forget(ids)
    forgotten = [task_id for task_id, record in found.items() if record is not None]
    unknown = [task_id for task_id, record in found.items() if record is None]
    if as_json:
        show_json({"forgotten": forgotten, "unknown": list(map(mask, unknown))})
    else:
        for task_id in forgotten:
            show_parts(("forgotten", "bold"), (f"  {task_id}", ""))
        for task_id in unknown:
            show_note(f"there was no record of {task_id}")
    _warn(list(found.values()))
    return OK


def _warn(records: list[Record | UpshotError | None]) -> None:
    there = [record for record in records if isinstance(record, Record)]
    running = sum(not record.is_terminal for record in there)
    revoked = sum(record.state == State.REVOKED for record in there)
    if running:
        show_note(f"{running} had not ended: what they return will be stored all the same")
    if revoked:
        show_note(f"{revoked} had been revoked: what still waits in a queue will be run now")


@click.command()
@source_option
@click.option(
    "--older-than",
    type=SPAN,
    help="Only what ended, or else last changed, at least so long ago.",
)
@states_option
@click.option("--dry-run", is_flag=True, help="Count what would be removed.")
@json_option
def prune(
    source: Source,
    older_than: float | None,
    states: frozenset[str],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove records that are of no more use: 7d old ones, say.

    Without --state: those of tasks that succeeded or failed. Name REVOKED only where nothing of
    what was revoked waits in a queue any more: without its record it is run. Name QUEUED, STARTED
    or RETRY for records whose tasks will not end: those that do are stored all the same.

    Without --older-than and --state: records that have expired, where the service does not remove
    them by itself.
    """
    expired = older_than is None and not states
    if expired and dry_run:
        raise click.UsageError(
            "what has expired cannot be counted; give --older-than or --state with --dry-run"
        )
    with source.open() as app:
        if expired:
            done = Pruned(removed=app.results.prune())
        else:
            before = None if older_than is None else clock.now() - older_than
            done = _pruned(app.results, Filter(states=states or PRUNED, before=before), dry_run)
    if as_json:
        show_json(
            {
                "removed": done.removed,
                "dry_run": dry_run,
                "looked_at": None if expired else done.looked_at,
                "changed": done.changed,
                "unreadable": done.unreadable,
            }
        )
    else:
        show_field("would remove" if dry_run else "removed", str(done.removed))
        if not expired:
            show_field("of", str(done.looked_at))
    if done.changed:
        show_note(f"{done.changed} were left: they changed meanwhile")
    if done.unreadable:
        show_note(f"{done.unreadable} cannot be read and were left; `forget` removes them")
    return OK


def _pruned(client: ResultClient, accepted: Filter, dry_run: bool) -> Pruned:
    from upshot.cli.terminal import counting  # rich, for who has asked for help only

    with counting("pruning") as told:

        def progress(done: Pruned) -> None:
            told(done.looked_at, f"{'found' if dry_run else 'removed'} {done.removed} of")

        return prune_records(client, accepted, dry_run=dry_run, progress=progress)
