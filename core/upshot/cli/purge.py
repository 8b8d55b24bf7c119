"""`upshot purge`: remove the messages that wait in queues."""

from __future__ import annotations

import click

from upshot.app import App
from upshot.cli.exits import FAILED, OK
from upshot.cli.parameters import app_option, json_option, queues_option
from upshot.cli.printing import safe, show_field, show_json, show_note
from upshot.cli.target import load

__all__ = ["purge"]


@click.command()
@app_option
@queues_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(target: str, queues: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Remove every message that waits in the queues, dead letters too.

    Messages that a worker holds stay, and so do all records: a task whose message is removed stays
    QUEUED until its record expires.
    """
    with load(target) as app:
        names = queues or tuple(app.queues())
        question = f"Remove what waits in {', '.join(names)} at {app.broker_url}?"
        if not yes and not click.confirm(safe(question), err=True):
            show_note("nothing was removed")
            return FAILED
        removed = {name: _purged(app, name) for name in names}
    if as_json:
        shown = {safe(name): count for name, count in removed.items()}
        show_json({"removed": sum(removed.values()), "queues": shown})
        return OK
    width = max(map(len, [*removed, "total"]))
    for name, count in removed.items():
        show_field(safe(name), str(count), width=width)
    if len(removed) > 1:
        show_field("total", str(sum(removed.values())), width=width)
    return OK


def _purged(app: App, queue: str) -> int:
    return app.broker.call(lambda broker, seconds: broker.purge([queue], seconds))
