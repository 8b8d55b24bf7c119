"""The command and its sub-commands: what each takes, and how errors become exit codes.

Exit codes: 0 fine; 1 a task or a service failed; 2 used or configured wrongly; 124 not in time.
"""

from __future__ import annotations

from typing import Any

import click

from upshot.cli import backends, call, config, purge, result, version, worker
from upshot.cli.printing import complain
from upshot.errors import (
    ConfigError,
    EncodeError,
    InvalidTaskIdError,
    ResultTimeoutError,
    UpshotError,
)

__all__ = ["FAILED", "TIMED_OUT", "WRONG", "main"]

FAILED, WRONG, TIMED_OUT = 1, 2, 124


class _Group(click.Group):
    """Turns upshot's errors into one line and an exit code; nobody's mistake shows our frames."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, InvalidTaskIdError, EncodeError) as exc:
            complain(str(exc))
            ctx.exit(WRONG)
        except ResultTimeoutError as exc:
            complain(str(exc))
            ctx.exit(TIMED_OUT)
        except UpshotError as exc:
            complain(str(exc))
            ctx.exit(FAILED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-A", "--app", "target", metavar="MODULE[:ATTR]", help="The app; or UPSHOT_APP.")
@click.pass_context
def main(ctx: click.Context, target: str | None) -> None:
    """Run Python functions as tasks and bring their results home.

    -A may also stand behind the sub-command.
    """
    ctx.obj = target


for _command in (
    worker.command,
    call.command,
    result.command,
    purge.command,
    backends.command,
    config.command,
    version.command,
):
    main.add_command(_command)
