"""The command line: `upshot -A module[:attribute] worker|call|result|purge|config|…`."""

from __future__ import annotations

from upshot.cli.entry import main

__all__ = ["main"]
