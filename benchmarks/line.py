"""The line between a process that measures and the one that asks it to: JSON, a line at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["say", "serve", "usage"]

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
    """Return what this process holds: sockets, threads, and resident memory in MB."""
    targets = [_target(path) for path in Path("/proc/self/fd").iterdir()]
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "connections": sum(each.startswith("socket:") for each in targets),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "rss": resident * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it was the listing's own
        return ""
