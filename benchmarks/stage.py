"""A contender's own process: does what comes as a line of JSON on stdin, answers on stdout.

    python -m benchmarks.stage CONTENDER SERVICE URL

Every function of `ORDERS` is an order, see `benchmarks.line`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from benchmarks.contenders import make
from benchmarks.contenders.contender import Contender
from benchmarks.line import say, serve, usage

__all__ = ["ORDERS", "VALUES"]

VALUES: Final[dict[str, object]] = {
    "small": {"id": 4711, "name": "a small result", "score": 0.25, "done": True},
    "10 kB": {"data": "x" * 10_000},
    "1 MB": {"data": "x" * 1_000_000},
}
"""What is stored, by the name of its size."""

_PATIENCE: Final = 20.0  # seconds for what should be there at once
_WARM_UP: Final = 5  # calls that are not counted
_LONGEST: Final = 0.5  # seconds that one sample takes


class _Stopwatch:
    """Measures the clock and this process's own processor time."""

    def __enter__(self) -> _Stopwatch:
        self._cpu, self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu = time.process_time() - self._cpu

    def per(self, count: int) -> dict[str, float]:
        """Return seconds, and seconds of the processor, for each of so many calls."""
        return {"seconds": self.seconds / count, "cpu": self.cpu / count}


def _new_ids(count: int) -> list[str]:
    return [uuid.uuid4().hex for _ in range(count)]


def measure(
    contender: Contender,
    *,
    operation: str,
    size: str,
    count: int,
    threads: int = 1,
    address: str | None = None,
) -> dict[str, float]:
    """Time single calls, spread over threads: so many, or fewer if they take long.

    Results that are carried are stored at `address`; None for this process's own.
    """
    if threads > 1 and operation != "store" and not contender.serves_threads:
        raise NotImplementedError
    ids, value = _new_ids(count + _WARM_UP), VALUES[size]
    to = contender.address() if address is None else address
    contender.expect(ids)

    def store(task_id: str) -> None:
        contender.store(task_id, value, to)

    if operation != "store":
        ids = ids[: _called(store, ids, _WARM_UP + threads)]
    call = {"store": store, "fetch": contender.fetch, "forget": contender.forget}[operation]
    _called(call, ids[:_WARM_UP], _WARM_UP)
    return _timed(call, ids[_WARM_UP:], threads)


def measure_batch(
    contender: Contender, *, operation: str, count: int, address: str | None = None
) -> dict[str, float]:
    """Time one call for many results; see `measure`."""
    ids, to = _new_ids(count), contender.address() if address is None else address
    values = dict.fromkeys(ids, VALUES["small"])
    contender.expect(ids)
    if operation == "store":
        with _Stopwatch() as watch:
            contender.store_many(values, to)
    else:
        contender.store_many(values, to)
        with _Stopwatch() as watch:
            contender.fetch_many(ids)
    return watch.per(1)


def _called(call: Callable[[str], object], ids: Sequence[str], at_least: int) -> int:
    """Call for each id, until it has taken long enough; return for how many."""
    until = time.perf_counter() + _LONGEST
    for number, each in enumerate(ids, 1):
        call(each)
        if number >= at_least and time.perf_counter() > until:
            return number
    return len(ids)


def _timed(call: Callable[[str], object], ids: Sequence[str], threads: int) -> dict[str, float]:
    if threads == 1:
        with _Stopwatch() as watch:
            count = _called(call, ids, 1)
        return watch.per(count)
    barrier = threading.Barrier(threads + 1)
    counts: list[int] = []

    def run(mine: Sequence[str]) -> None:
        try:
            call(mine[0])  # opens what each thread has of its own
            barrier.wait()
            counts.append(_called(call, mine[1:], 1))
        except BaseException:
            barrier.abort()
            raise

    workers = [threading.Thread(target=run, args=(ids[n::threads],)) for n in range(threads)]
    for each in workers:
        each.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()
    with _Stopwatch() as watch:
        for each in workers:
            each.join()
    if len(counts) < threads:
        raise RuntimeError("a thread failed")
    return watch.per(sum(counts))


# -- waiting ------------------------------------------------------------------------------------


def expect(contender: Contender, *, ids: list[str]) -> str:
    """Prepare to wait; return where results are to be sent."""
    contender.expect(ids)
    return contender.address()


def wait(contender: Contender, *, id: str) -> float:  # noqa: A002
    """Return the moment when a wait ended, on the monotonic clock."""
    contender.wait(id, _PATIENCE)
    return time.monotonic()


def wait_in_threads(contender: Contender, *, ids: list[str], settle: float) -> dict[str, Any]:
    """Wait in a thread for each id; say when each came back, and what waiting cost before."""
    if not contender.serves_threads:
        raise NotImplementedError
    moments: dict[str, float] = {}
    errors = Counter[str]()

    def run(task_id: str) -> None:
        try:
            contender.wait(task_id, _PATIENCE)
            moments[task_id] = time.monotonic()
        except Exception as exc:
            errors[f"{type(exc).__name__}: {exc}"] += 1

    threads = [threading.Thread(target=run, args=(each,)) for each in ids]
    for each in threads:
        each.start()
    time.sleep(settle)
    with _Stopwatch() as watch:
        time.sleep(settle)
    say({"waiting": True})
    connections = usage()["connections"]
    for each in threads:
        each.join()
    for error, count in errors.items():
        print(f"{count} of {len(ids)} threads: {error}", file=sys.stderr)
    return {
        "moments": list(moments.values()),
        "failed": len(ids) - len(moments),
        "idle": watch.cpu / watch.seconds,
        "connections": connections,
    }


def wait_many(contender: Contender, *, ids: list[str]) -> dict[str, Any]:
    """Wait in one call for all ids; return the moment when it ended."""
    say({"waiting": True})
    contender.wait_many(ids, _PATIENCE)
    return {"moment": time.monotonic(), **usage()}


def await_many(contender: Contender, *, ids: list[str]) -> float:
    """Await each id in a coroutine of its own; return the moment when the last one ended.

    Who asks is told at once: it cannot be seen from outside whether all coroutines wait by now.
    """
    if type(contender).await_many is Contender.await_many:
        raise NotImplementedError  # before anybody stores what would not be awaited
    say({"waiting": True})
    contender.await_many(ids, _PATIENCE)
    return time.monotonic()


def store(
    contender: Contender, *, ids: list[str], address: str, delay: float, pause: float = 0.0
) -> dict[str, float]:
    """Store a small result for each id; return when the first call began and the last returned."""
    time.sleep(delay)
    began = time.monotonic()
    for each in ids:
        contender.store(each, VALUES["small"], address)
        if pause:
            time.sleep(pause)
    return {"called": began, "returned": time.monotonic()}


def store_many(
    contender: Contender, *, ids: list[str], address: str, delay: float
) -> dict[str, float]:
    """Store small results in batches of 1 000; return when the first began and the last ended."""
    time.sleep(delay)
    began = time.monotonic()
    for start in range(0, len(ids), 1000):
        batch = ids[start : start + 1000]
        contender.store_many(dict.fromkeys(batch, VALUES["small"]), address)
    return {"called": began, "returned": time.monotonic()}


ORDERS: Final[dict[str, Callable[..., Any]]] = {
    each.__name__: each
    for each in (
        measure,
        measure_batch,
        expect,
        wait,
        wait_in_threads,
        wait_many,
        await_many,
        store,
        store_many,
    )
}


def main() -> None:
    """Serve one contender."""
    contender = make(*sys.argv[1:4])
    serve({name: partial(order, contender) for name, order in ORDERS.items()})
    contender.close()


if __name__ == "__main__":
    main()
