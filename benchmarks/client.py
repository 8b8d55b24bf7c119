"""The side of a task queue that submits: a process that takes orders, see `benchmarks.line`.

BENCH_BROKER=… BENCH_RESULTS=… python -m benchmarks.client APPLICATION
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any, Final

from benchmarks.line import serve, usage

__all__ = ["main"]

_PATIENCE: Final = 60.0  # seconds for one result
_LONGEST: Final = 2.0  # seconds for one sample of round trips


def main() -> None:
    """Serve one application."""
    began = time.perf_counter()
    application: Any = importlib.import_module(f"benchmarks.applications.with_{sys.argv[1]}")
    imported = time.perf_counter() - began

    def first() -> dict[str, float]:
        """Get a first result: what has to be opened for it, and what is in memory then."""
        before = usage()["rss"]
        start = time.perf_counter()
        value = application.result(application.submit(1), _PATIENCE)
        assert value == 1
        seconds = time.perf_counter() - start
        return {"import": imported, "rss before": before, "first": seconds, **usage()}

    def throughput(count: int) -> dict[str, float]:
        """Submit many tasks, then get all results."""
        cpu, start = time.process_time(), time.perf_counter()
        handles = [application.submit(number) for number in range(count)]
        submitted = time.perf_counter() - start
        for number, handle in enumerate(handles):
            assert application.result(handle, _PATIENCE) == number
        seconds = time.perf_counter() - start
        spent = time.process_time() - cpu
        return {"submit": submitted / count, "all": seconds / count, "cpu": spent / count}

    def round_trips(count: int) -> list[float]:
        """Submit a task and wait for its result, one after the other; seconds of each.

        So many, or fewer if they take long.
        """
        moments: list[float] = []
        until = time.perf_counter() + _LONGEST
        for number in range(count):
            start = time.perf_counter()
            application.result(application.submit(number), _PATIENCE)
            moments.append(time.perf_counter() - start)
            if time.perf_counter() > until:
                break
        return moments

    serve({"first": first, "throughput": throughput, "round_trips": round_trips})


if __name__ == "__main__":
    main()
