"""Notices that a module's file has changed: for development."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import final

__all__ = ["Watcher"]


@final
class Watcher:
    """Compares the files of the user's loaded modules with what they were at the start."""

    def __init__(self) -> None:
        self._seen = self._now()

    def __call__(self) -> bool:
        """Tell whether a file has changed, come or gone since the start."""
        return self._now() != self._seen

    def _now(self) -> dict[str, int]:
        # What pip or the interpreter installed does not change under a developer's hands.
        installed = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
        times: dict[str, int] = {}
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and not file.startswith(installed):
                path = Path(file)
                times[file] = path.stat().st_mtime_ns if path.exists() else 0
        return times
