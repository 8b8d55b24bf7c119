"""The command `upshot`."""

from __future__ import annotations

from upshot.cli.command import main

__all__ = ["main"]
