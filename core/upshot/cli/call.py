"""`upshot call`: send a task, and wait for its outcome if asked to."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, cast

import click

from upshot import AsyncResult, ResultSet, State
from upshot.app import App
from upshot.cli.exits import FAILED, OK
from upshot.cli.parameters import SECONDS, app_option
from upshot.cli.printing import as_text, show_error, show_lines, show_note
from upshot.cli.target import load
from upshot.errors import ResultTimeoutError
from upshot.spelling import near

__all__ = ["call"]


@click.command()
@app_option
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[ARGS]...")
@click.option("--kwargs", default="{}", metavar="JSON", help="Such as '{\"x\": 1}'.")
@click.option("--queue", help="Where it waits; by default the task's own queue.")
@click.option("--countdown", type=SECONDS, help="Start it no sooner than so many seconds from now.")
@click.option(
    "--expires", type=SECONDS, help="Do not start it later than so many seconds from now."
)
@click.option("--priority", type=click.IntRange(0, 9), help="Larger runs first.")
@click.option("--id", "task_id", help="The task's id; by default a random one.")
@click.option("--key", help="Send nothing if a call with this key has sent the task already.")
@click.option(
    "--key-expires", type=SECONDS, help="How long the key is taken; by default `task_key_expires`."
)
@click.option(
    "--wait/--no-wait", default=None, help="Wait for the outcome and print it, not the id."
)
@click.option(
    "-t", "--timeout", type=SECONDS, help="Wait at most so long; by default for ever. With --wait."
)
def call(
    target: str,
    name: str,
    arguments: tuple[str, ...],
    kwargs: str,
    queue: str | None,
    countdown: float | None,
    expires: float | None,
    priority: int | None,
    task_id: str | None,
    key: str | None,
    key_expires: float | None,
    wait: bool | None,
    timeout: float | None,
) -> int:
    """Send the task NAME with ARGS and print its id.

    Each argument is read as JSON, and is text if it is none: 1 is a number, '"1"' and one are
    texts. The last part of a task's name is enough if no other task ends in it. Write -- before
    arguments that begin with a -.
    """
    if wait is False and timeout is not None:
        raise click.UsageError("--timeout is how long to --wait; it makes no sense with --no-wait")
    keywords = _keywords(kwargs)
    with load(target) as app:
        found = _resolved(name, app.tasks)
        waits = bool(wait) or timeout is not None
        if waits and _keeps_no_result(app, found):
            raise click.UsageError(f"{found} keeps no result, so there is nothing to wait for")
        if found not in app.tasks:
            show_note(f"{target} has no task {found!r}{_near(found, app.tasks)}; it is sent anyway")
        handle = app.send_task(
            found,
            [_argument(text) for text in arguments],
            keywords,
            queue=queue,
            countdown=countdown,
            expires=expires,
            priority=priority,
            task_id=task_id,
            key=key,
            key_expires=-1.0 if key_expires is None else key_expires,
        )
        handle.mark_released()
        if handle.is_repeat:
            show_note("the key was taken already: this is the task that has it")
        if waits:
            try:
                return _awaited(handle, timeout)
            except ResultTimeoutError as exc:
                trouble = exc.__cause__
                raise app.origin.explain_timeout(handle.id, timeout, trouble) from exc
        show_lines(handle.id)
        return OK


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _argument(text: str) -> Any:
    """Return what `text` says as JSON, or `text` itself; NaN and Infinity are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _keywords(text: str) -> dict[str, Any]:
    found = _argument(text)
    if not isinstance(found, dict):
        raise click.BadParameter(
            f'it must be a JSON object such as {{"x": 1}}; got {text!r}', param_hint="--kwargs"
        )
    return cast("dict[str, Any]", found)


def _resolved(name: str, known: Collection[str]) -> str:
    """Return the one registered name that `name` is, or ends; otherwise `name` itself."""
    if name in known:
        return name
    ending = [one for one in known if one.endswith(f".{name}")]
    return ending[0] if len(ending) == 1 else name


def _near(name: str, known: Collection[str]) -> str:
    """Return a hint at registered names that may have been meant."""
    last = {one.rpartition(".")[2] for one in known}
    meant = near(name.rpartition(".")[2], last)
    close = [one for one in known if one.rpartition(".")[2] in meant]
    close = near(name, known) or close
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _keeps_no_result(app: App, name: str) -> bool:
    return name in app.tasks and app.tasks[name].ignore_result


def _awaited(handle: AsyncResult[Any], timeout: float | None) -> int:
    """Wait for the task to end, print its outcome, and return the exit code."""
    for ended in ResultSet([handle]).as_completed(timeout):
        outcome = ended.result
        if ended.state == State.SUCCESS:
            show_lines(as_text(outcome))
            return OK
        if ended.state == State.FAILURE:
            show_lines(ended.traceback or f"{type(outcome).__name__}: {outcome}", stderr=True)
        else:
            show_error(str(outcome))
    return FAILED
