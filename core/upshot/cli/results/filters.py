"""The options that say which records are meant."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from upshot.cli.printing import show_note
from upshot.cli.results.moments import MOMENT
from upshot.inventory import Filter
from upshot.spelling import near
from upshot.states import State

__all__ = ["filter_options", "states_option"]

_ALIKE = 0.8


def _parts(_: click.Context, __: click.Parameter, values: Sequence[str]) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for text in values for name in text.split(","))))


def _states(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> frozenset[str]:
    found = frozenset(name.upper() for name in _parts(context, parameter, values))
    if values and not found:
        raise click.BadParameter("it names no state")
    if State.PENDING in found:
        raise click.BadParameter("PENDING means that there is no record: none has that state")
    for name in found - set(State):
        meant = near(name, set(State) - {State.PENDING}, likeness=_ALIKE)
        if meant:  # or else a state of the tasks' own
            show_note(f"{name} is no state of upshot's own; did you mean {' or '.join(meant)}?")
    return found


states_option = click.option(
    "-s",
    "--state",
    "states",
    multiple=True,
    metavar="STATE,…",
    callback=_states,
    help="Only in these states.",
)
"""Add `--state`, passed as `states: frozenset[str]`."""


def filter_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add options for name, state, queue and time, passed together as `accepted: Filter`."""

    @functools.wraps(command)
    def filtered(*args: Any, **kwargs: Any) -> int:
        named = {
            name: kwargs.pop(name) for name in ("names", "states", "queues", "unfinished", "since")
        }
        return command(*args, accepted=Filter(**named, before=kwargs.pop("until")), **kwargs)

    options = (
        click.option(
            "-n",
            "--name",
            "names",
            multiple=True,
            metavar="PATTERN",
            help="Only tasks of this name, such as shop.order or 'shop.*'.",
        ),
        states_option,
        click.option(
            "-Q",
            "--queues",
            multiple=True,
            metavar="NAME,…",
            callback=_parts,
            help="Only tasks sent to these queues.",
        ),
        click.option("--unfinished", is_flag=True, help="Only tasks that have not ended."),
        click.option(
            "--since",
            type=MOMENT,
            metavar="TIME",
            help="Only what changed since then: 2h ago, say, or 2026-01-31T08:00Z.",
        ),
        click.option(
            "--until", type=MOMENT, metavar="TIME", help="Only what last changed before then."
        ),
    )
    decorated: Callable[..., int] = filtered
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
