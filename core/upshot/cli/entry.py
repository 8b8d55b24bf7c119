"""The command `upshot`: its sub-commands, and what becomes of an error in any of them."""

from __future__ import annotations

import contextlib
import errno
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import click

from upshot.cli.exits import FAILED, INTERRUPTED, OK, exit_code
from upshot.cli.parameters import app_help
from upshot.cli.printing import (
    flush_output,
    give_up_output,
    safe,
    show_error,
    use_plain_streams,
)
from upshot.errors import ConfigError, UpshotError

__all__ = ["main", "upshot"]

_OWN: Final = frozenset(
    {
        "backends",
        "call",
        "config",
        "doctor",
        "generate-key",
        "purge",
        "result",
        "results",
        "status",
        "version",
        "worker",
    }
)
"""Our sub-commands; each is what a module beside this one has under its own name, with `_`."""

_FURTHER: Final = "upshot.commands"
"""The entry-point group of further sub-commands; a name is what stands after `upshot`."""

_HELP: Final = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises for a command without arguments, from 8.2 on: the help, which is ours."""

_NOT_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE})
"""What writing to stdout fails with; services and files have errors of their own."""


class _Commands(click.Group):
    """Our own commands, and those of installed distributions; each is imported when it is used.

    A worker so keeps nothing in its memory that only another command needs.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*sorted(_OWN), *sorted(entry_points(group=_FURTHER).names)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _OWN:
            name = cmd_name.replace("-", "_")
            command: click.Command = getattr(import_module(f"upshot.cli.{name}"), name)
            return command
        further = entry_points(group=_FURTHER, name=cmd_name)
        return _loaded(next(iter(further))) if further else None


def _loaded(entry: EntryPoint) -> click.Command:
    command: Any = entry.load()
    if not isinstance(command, click.Command):
        raise ConfigError(f"`upshot {entry.name}` cannot run: {entry.value} is no click command")
    return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-A",
    "--app",
    "target",
    metavar="MODULE[:NAME]",
    envvar="UPSHOT_APP",
    help=app_help("UPSHOT_APP"),
)
@click.version_option(package_name="upshot", message="%(prog)s %(version)s")
@click.pass_context
def upshot(context: click.Context, target: str | None) -> None:
    """Run tasks and look at their results.

    Exit codes: 0 all is well; 1 the task or a service failed; 2 wrong usage or configuration;
    124 the time was up.
    """
    context.obj = target or None


def main() -> int:
    """Run the command line with the arguments of this process, and return its exit code.

    An error of upshot's is one line on stderr. Only a defect of ours ends in a traceback.
    """
    use_plain_streams()
    try:
        code = _run()
        flush_output()
    except OSError as exc:
        if exc.errno not in _NOT_WRITTEN or exc.filename is not None:
            raise
        give_up_output()
        if exc.errno != errno.EPIPE:  # otherwise whoever read it has seen enough
            with contextlib.suppress(OSError):  # stderr may lie on the same disk
                show_error(f"the output cannot be written: {exc.strerror}")
        return FAILED
    return code


def _run() -> int:
    try:
        code: object = upshot.main(prog_name="upshot", standalone_mode=False)
    except click.ClickException as exc:
        if not isinstance(exc, _HELP):
            # click quotes what was typed as it was typed, and calls its message final
            vars(exc)["message"] = safe(exc.message)
        exc.show()
        return exc.exit_code
    except click.Abort as exc:
        if isinstance(exc.__context__, KeyboardInterrupt):
            if exc.__cause__ is None:  # at a question, which stands in a line without an end
                click.echo(err=True)
            return INTERRUPTED
        show_error("nothing was done: no answer")
        return FAILED
    except UpshotError as exc:
        show_error(str(exc) or type(exc).__name__)
        return exit_code(exc)
    return code if isinstance(code, int) else OK
