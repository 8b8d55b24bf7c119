"""The same application for each task queue: one task that returns its argument.

Each module has `submit(number)`, `result(handle, timeout)` and `WORKER`, the arguments of Python
that start a worker for two tasks at once. `BENCH_BROKER` and `BENCH_RESULTS` say where it works.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATIONS"]

APPLICATIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "upshot": ("", ("redis", "sqlite", "rpc")),
    "celery": ("peers", ("redis", "sqlite", "rpc")),
    "celery_confirmed": ("peers", ("rpc",)),
    "dramatiq": ("peers", ("redis",)),
    "huey": ("peers", ("redis", "sqlite")),
    "rq": ("peers", ("redis",)),
    "taskiq": ("peers", ("redis",)),
    "arq": ("arq", ("redis",)),
}
"""By name: whose environment it needs, and the services it is measured on."""
