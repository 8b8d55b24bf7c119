"""Records as lines of text, and from one service into another: export, import, migration."""

from __future__ import annotations

from upshot.archive.lines import VERSION, from_line, longest_line, to_line
from upshot.archive.migrating import Migration, migrate
from upshot.archive.restoring import Restored, restore

__all__ = [
    "VERSION",
    "Migration",
    "Restored",
    "from_line",
    "longest_line",
    "migrate",
    "restore",
    "to_line",
]
