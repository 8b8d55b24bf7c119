"""The line between a process that measures and the one that asks it to: JSON, a line at a time."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["say", "serve", "usage"]

_ESTABLISHED: Final = "01"

_out = 1


def serve(orders: Mapping[str, Callable[..., Any]]) -> None:
    """Do what comes on stdin, and answer, until stdin ends.

    An order names one of `orders` and its keywords. The answer is what that returned, {"error": …},
    or {"missing": true} if it raised NotImplementedError.
    """
    global _out
    _out = os.dup(1)
    os.dup2(2, 1)
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer: Any = {"answer": orders[order.pop("order")](**order)}
        except NotImplementedError:
            answer = {"missing": True}
        except Exception as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        say(answer)


def say(answer: object) -> None:
    """Write one line to who asked."""
    os.write(_out, json.dumps(answer).encode() + b"\n")


def usage() -> dict[str, float]:
    """Return what this process holds: TCP connections, threads, and resident memory in MB."""
    held = {_target(path) for path in Path("/proc/self/fd").iterdir()}
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "connections": len(held & _connected()),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "rss": resident * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


def _connected() -> set[str]:
    """Return the sockets of all established connections, as links to them are written."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
            rows = [line.split() for line in lines]
            found |= {f"socket:[{row[9]}]" for row in rows if row[3] == _ESTABLISHED}
    return found


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it was the listing's own
        return ""
