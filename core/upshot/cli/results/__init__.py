"""`upshot results`: look at many results at once, wait for them, remove, move and count them."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

__all__ = ["results"]

_COMMANDS: Final = {
    "export": "results.moving:export",
    "forget": "results.removing:forget",
    "import": "results.moving:import_",
    "list": "results.listing:list_",
    "migrate": "results.moving:migrate",
    "prune": "results.removing:prune",
    "show": "result:show",
    "stats": "results.listing:stats",
    "wait": "results.following:wait",
    "watch": "results.following:watch",
}
"""Each is imported when it is used; `show` is also `upshot result ID`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"upshot.cli.{module}"), name)
        return command


@click.group(cls=_Commands)
def results() -> None:
    """List, show, await, watch, remove, move and count results.

    Which ones: those of an app, -A MODULE[:NAME]; or of a service, --url URL, in --namespace NAME.

    Exit codes: 0 all is well; 1 a task failed or was revoked, a record cannot be moved, or a
    service could not do it; 2 wrong usage or configuration; 124 the time was up; 130 Ctrl-C.
    """
