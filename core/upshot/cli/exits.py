"""What the command's exit codes mean. They are part of its interface: scripts rely on them."""

from __future__ import annotations

from typing import Final

from upshot.errors import (
    ConfigError,
    EncodeError,
    InvalidTaskIdError,
    ResultTimeoutError,
    UpshotError,
)

__all__ = ["FAILED", "INTERRUPTED", "OK", "TIMED_OUT", "USAGE", "exit_code"]

OK: Final = 0
"""What was asked for was done, and the task did not fail."""

FAILED: Final = 1
"""A task failed or was revoked, or a service could not do what was asked. Of `upshot worker`: a
task was cut short, or its process died in burst mode. Of `upshot results export`, `import` and
`migrate`: a record is missing where it was to go."""

USAGE: Final = 2
"""The command or the configuration is wrong; click's own code for that."""

TIMED_OUT: Final = 124
"""Not all tasks ended in time; as in timeout(1)."""

INTERRUPTED: Final = 130
"""Ended by Ctrl-C: 128 + SIGINT, as shells have it."""


def exit_code(error: UpshotError) -> int:
    """Return the exit code that tells what kind of error this is."""
    if isinstance(error, ResultTimeoutError):
        return TIMED_OUT
    if isinstance(error, (ConfigError, InvalidTaskIdError, EncodeError)):
        return USAGE
    return FAILED
