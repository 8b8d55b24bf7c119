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

    submitted: list[Any] = []

    def submit(count: int) -> None:
        """Submit tasks, and do nothing else."""
        submitted.extend(application.submit(number) for number in range(count))

    def collect() -> None:
        """Get the results of what `submit` submitted."""
        while submitted:
            application.result(submitted.pop(), _PATIENCE)

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
        until_submitted = time.perf_counter() - start
        for number, handle in enumerate(handles):
            assert application.result(handle, _PATIENCE) == number
        seconds = time.perf_counter() - start
        spent = time.process_time() - cpu
        return {"submit": until_submitted / count, "all": seconds / count, "cpu": spent / count}

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

    orders = (first, throughput, round_trips, submit, collect)
    serve({each.__name__: each for each in orders})


if __name__ == "__main__":
    main()
