"""`upshot -A tasks call add 2 3 --wait`."""

from __future__ import annotations

import difflib
import json
import sys
from typing import Any

import click

from upshot.app import App
from upshot.cli.printing import complain, print_json, print_lines
from upshot.cli.result import show
from upshot.cli.target import app_option, load_app
from upshot.errors import ConfigError, ResultTimeoutError
from upshot.task import to_seconds

__all__ = ["command"]


# Negative numbers are arguments of the task, not options of ours.
@click.command("call", context_settings={"ignore_unknown_options": True})
@app_option
@click.argument("name")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--kwargs", default="{}", help="Keyword arguments, as a JSON object.")
@click.option("--queue", help="Where it waits [the task's own].")
@click.option("--countdown", type=float, help="Seconds before which it does not start.")
@click.option("--expires", type=float, help="Seconds after which it is not started.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 to 9, larger first.")
@click.option("--id", "task_id", help="The task id [random].")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("-t", "--timeout", type=click.FloatRange(0), help="With --wait: at most so long.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def command(
    ctx: click.Context,
    target: str | None,
    name: str,
    args: tuple[str, ...],
    kwargs: str,
    queue: str | None,
    countdown: float | None,
    expires: float | None,
    priority: int | None,
    task_id: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Send the task NAME. Each of ARGS is read as JSON, or else as text.

    A task of this app may be named by its last part: `add` for `tasks.add`.
    """
    app = load_app(ctx, target)
    to_seconds(expires, "expires")
    handle = app.send_task(
        _full_name(app, name),
        [_read(argument) for argument in args],
        _keywords(kwargs),
        queue=queue,
        countdown=countdown,
        expires=expires,
        priority=priority,
        task_id=task_id,
    )
    if not wait:
        print_json({"id": handle.id}) if as_json else print_lines([("id", handle.id)])
        return
    try:
        handle.get(timeout, propagate=False)
    except ResultTimeoutError:
        show(handle, as_json=as_json)
        raise
    sys.exit(show(handle, as_json=as_json))


def _full_name(app: App, name: str) -> str:
    if name in app.tasks:
        return name
    ending = [full for full in app.tasks if full.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    near = difflib.get_close_matches(name, app.tasks, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    complain(f"this app has no task {name!r}, so it is sent as named{hint}")
    return name


def _read(argument: str) -> Any:
    try:
        return json.loads(argument)
    except ValueError:
        return argument


def _keywords(text: str) -> dict[str, Any]:
    try:
        keywords: dict[str, Any] = json.loads(text)
    except ValueError as exc:
        raise ConfigError(f"--kwargs is not JSON: {exc}") from exc
    if type(keywords) is not dict:
        raise ConfigError("--kwargs is a JSON object: '{\"x\": 1}'")
    return keywords
