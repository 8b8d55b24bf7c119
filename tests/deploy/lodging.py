"""This Python, its packages and this checkout in places where any user may look.

A worker in earnest runs as a user who has no business in the home of whoever runs the tests, which
is where their interpreter and their checkout may lie. In a namespace of its own it finds them below
`/run`.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

__all__ = ["MOUNTS", "PROGRAM", "PROGRAM_IN_PYTHON", "ROOT", "TASKS", "environment"]

ROOT = Path(__file__).resolve().parents[2]

TASKS = """
import os
import time

from upshot import App

app = App()


@app.task
def add(x, y):
    return x + y


@app.task
def nap(seconds):
    time.sleep(seconds)
    return seconds
"""
"""A module with an app, and two tasks that every example runs."""

MOUNTS = """
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/python /run/site /run/checkout
mount --bind "$PYTHON" /run/python
mount --bind "$SITE" /run/site
mount --bind "$CHECKOUT" /run/checkout
mount -t tmpfs -o mode=755 tmpfs /srv
"""
"""For a shell in new namespaces of mounts and processes; with the variables of `environment`."""

PROGRAM = f"""#!/bin/sh
LD_LIBRARY_PATH=/run/python/lib \\
    exec /run/python/bin/python{sys.version_info.major}.{sys.version_info.minor} -I "$0.py" "$@"
"""
"""The command `upshot` there; beside it has to be `PROGRAM_IN_PYTHON`, as `upshot.py`."""

PROGRAM_IN_PYTHON = """import os
import sys

sys.path[:0] = [
    *(f"/run/checkout/{name}" for name in ("core", "backends", "contrib", "conformance")),
    "/run/site",
]
del os.environ["LD_LIBRARY_PATH"]
from upshot.cli import main

sys.exit(main())
"""


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of `MOUNTS`, and `FOLDER`, the test's own."""
    return {
        "PATH": os.environ["PATH"],
        "FOLDER": str(folder),
        "PYTHON": sys.base_prefix,
        "SITE": sysconfig.get_path("purelib"),
        "CHECKOUT": str(ROOT),
    }
