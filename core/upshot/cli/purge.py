"""`upshot -A tasks purge`."""

from __future__ import annotations

from functools import partial

import click

from upshot.broker import Broker
from upshot.cli.printing import print_json, print_lines
from upshot.cli.target import app_option, load_app

__all__ = ["command"]


@click.command("purge")
@app_option
@click.option("-Q", "--queues", default="", help="Comma-separated [all that the tasks name].")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def command(ctx: click.Context, target: str | None, queues: str, yes: bool, as_json: bool) -> None:
    """Remove the messages that no worker has taken yet. Results are not touched."""
    app = load_app(ctx, target)
    names = list(filter(None, (queue.strip() for queue in queues.split(",")))) or app.queues()
    if not yes:
        listed = ", ".join(names)
        click.confirm(f"Remove every waiting message of {listed} at {app.broker_url}?", abort=True)
    counts = {name: app.broker.call(partial(_purge, name)) for name in names}
    if as_json:
        print_json(counts)
    else:
        print_lines((name, f"{count} removed") for name, count in counts.items())


def _purge(queue: str, broker: Broker, seconds: float) -> int:
    return broker.purge([queue], seconds)
