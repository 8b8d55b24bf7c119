"""What this process holds: descriptors and threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from upshot_conformance.harness import UnavailableError

__all__ = ["open_descriptors", "running_threads"]


def open_descriptors() -> set[str]:
    """Return each open descriptor with what it leads to.

    Raises:
        UnavailableError: this system does not list them.
    """
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        raise UnavailableError("this system has no /proc/self/fd to list descriptors in")
    found: set[str] = set()
    for name in os.listdir(folder):
        try:
            found.add(f"{name} → {os.readlink(folder / name)}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def running_threads() -> set[threading.Thread]:
    """Return the threads that Python knows of."""
    return set(threading.enumerate())
