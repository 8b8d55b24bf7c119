"""Options and types of argument that several sub-commands share."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import click

from upshot.message import MAX_NAME, is_name

__all__ = [
    "SECONDS",
    "app_help",
    "app_option",
    "json_option",
    "optional_app_option",
    "queues_option",
]

if TYPE_CHECKING:
    _Type = click.ParamType[float, Any]
else:
    _Type = click.ParamType  # generic for type checkers of click 8.4 and newer only

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST: Final = threading.TIMEOUT_MAX  # seconds; nothing in Python waits longer


def app_help(variable: str | None = None) -> str:
    """Return the help of `-A`; `variable` is the environment's name for it."""
    also = f" Also in {variable}." if variable else ""
    return f"The module that makes the App, and its name there.{also}"


@final
class _Seconds(_Type):
    """A finite number of seconds, zero or more, as float."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= _LONGEST:  # false for NaN
            self.fail(f"{value!r} is not a number of seconds from 0 to {_LONGEST:g}", param, ctx)
        return seconds


SECONDS: Final = _Seconds()
"""A finite number of seconds, zero or more."""


def _inherited(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
    """Return what stands after the sub-command, or else before it, or in the environment."""
    above: object = context.obj
    return value or (above if isinstance(above, str) else None)


def _required(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    target = _inherited(context, parameter, value)
    if target is None:
        raise click.UsageError("which app? Give -A MODULE[:NAME], or set UPSHOT_APP", context)
    return target


def _app(callback: Callable[[click.Context, click.Parameter, str | None], str | None]) -> Any:
    return click.option(
        "-A", "--app", "target", metavar="MODULE[:NAME]", callback=callback, help=app_help()
    )


def app_option(command: F) -> F:
    """Add `-A`, passed as `target: str`; without one the usage is wrong."""
    decorated: F = _app(_required)(command)
    return decorated


def optional_app_option(command: F) -> F:
    """Add `-A`, passed as `target: str | None`."""
    decorated: F = _app(_inherited)(command)
    return decorated


def json_option(command: F) -> F:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _names(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    names = (name.strip() for value in values for name in value.split(","))
    found = tuple(dict.fromkeys(filter(None, names)))
    if values and not found:
        raise click.BadParameter("it names no queue")
    for name in found:
        if not is_name(name):
            raise click.BadParameter(
                f"a queue's name is 1 to {MAX_NAME} printable characters, not {name!r:.300}"
            )
    return found


def queues_option(command: F) -> F:
    """Add `-Q`, passed as `queues: tuple[str, ...]`; empty if it is not given."""
    return click.option(
        "-Q",
        "--queues",
        multiple=True,
        metavar="NAME,…",
        callback=_names,
        help="Queues, separated by commas; by default all that the app's tasks name.",
    )(command)
