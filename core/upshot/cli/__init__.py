"""The command line: `upshot -A module[:attribute] worker|call|result|purge|config|…`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> int:
    """Run the command line with the arguments of this process, and return its exit code."""
    try:
        from upshot.cli import entry  # takes a tenth of a second, and Ctrl-C may come in it

        return entry.main()
    except KeyboardInterrupt:  # outside of any command; see `upshot.cli.exits`
        return 130
