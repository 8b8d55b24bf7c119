"""Tasks and callers that go on for ever in small: each round does the same, and measures itself.

Workers import this module as `jobs`. `python -m jobs ROUNDS KIND=COUNT…` is a caller: it
does each kind of work COUNT times in ROUNDS rounds, after one round to warm up, and prints a JSON
line per kind: what it held itself, and what the worker's process held, after each round.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from upshot import App, clock, current_task
from upshot.errors import ResultTimeoutError
from upshot.request import Request
from upshot.result import AsyncResult

PATIENCE: Final = 120.0  # seconds that anything may take which is not measured
BATCH: Final = 200  # tasks sent, and awaited, at a time
AHEAD: Final = 3  # batches that are sent before the first one is awaited
SHORT: Final = 0.0001  # seconds of a wait in vain
MOMENT: Final = 0.005  # seconds of a fetch in vain
LONG_ENOUGH: Final = 0.2  # seconds of one that opens all that waiting needs
FEW: Final = 10  # queues of new names at a time: for each, RabbitMQ makes eight
MANY: Final = 10_000  # ids; a client remembers fewer
EXPIRES: Final = 5.0  # seconds that a result is kept which nobody reads

app = App("jobs", no_worker_warning=None)
RUNS: Final = [0]  # tasks run in this process


def measure() -> dict[str, int]:
    """Return what this process holds: memory blocks, bytes of RSS, descriptors, threads.

    Blocks are Python's: one for each small object, strings too. A leak of one object in each of a
    hundred calls is a hundred more, which shows long before it does in RSS. `runs` is how many
    tasks this process has run as a worker.
    """
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "blocks": sys.getallocatedblocks(),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "runs": RUNS[0],
    }


def note() -> None:
    """Count one more run of a task in this process."""
    RUNS[0] += 1


@app.task
def census() -> dict[str, int]:
    """Measure the worker's process."""
    return measure()


@app.task
def echo(value: object) -> object:
    """Return the argument."""
    note()
    return value


@app.task
def fail(number: int) -> None:
    """Fail three frames deep, with a cause."""
    note()

    def deeper(depth: int, burden: list[int]) -> None:
        if depth:
            deeper(depth - 1, [*burden, depth])
        try:
            raise KeyError(number)
        except KeyError as exc:
            raise ValueError(f"number {number} fails") from exc

    deeper(3, [])


@app.task(max_retries=1)
def again() -> int:
    """Ask for another attempt, once."""
    note()
    context = current_task()
    if not context.retries:
        context.retry(countdown=0)
    return context.attempt


@app.task
def report(count: int) -> None:
    """Tell of its progress so often."""
    note()
    context = current_task()
    for current in range(count):
        context.progress(current, count)


@app.task
async def coroutine(value: object) -> object:
    """Return the argument after a turn of the loop."""
    note()
    await asyncio.sleep(0)
    return value


# -- what callers do: each does so many of one kind, and leaves nothing behind ---------------------


def parts(count: int, most: int = BATCH) -> Iterator[int]:
    """Cut a count into parts of at most `most`."""
    while count > 0:
        yield min(count, most)
        count -= most


def in_batches(name: str, count: int) -> None:
    """Send tasks, wait for their ends and forget them; some batches are always on their way."""
    sent: deque[list[AsyncResult[Any]]] = deque()

    def take() -> None:
        results = app.ResultSet([handle.id for handle in sent.popleft()])
        assert len(results.get(timeout=PATIENCE, propagate=False)) == len(results)
        results.forget()

    for part in parts(count):
        arguments = () if name == "jobs.again" else (1,)
        sent.append(app.send([Request(name=name, args=arguments) for _ in range(part)]))
        if len(sent) > AHEAD:
            take()
    while sent:
        take()


def exchanges(count: int) -> None:
    """Submit, get and forget, in batches."""
    in_batches("jobs.echo", count)


def failures(count: int) -> None:
    """The same, of tasks that fail."""
    in_batches("jobs.fail", count)


def retries(count: int) -> None:
    """The same, of tasks that are retried."""
    in_batches("jobs.again", count)


def coroutines(count: int) -> None:
    """The same, of tasks that are coroutines."""
    in_batches("jobs.coroutine", count)


def singles(count: int) -> None:
    """Submit, get and forget, one at a time."""
    for number in range(count):
        handle = app.send_task("jobs.echo", [number])
        assert handle.get(timeout=PATIENCE) == number
        handle.forget()


def errors(count: int) -> None:
    """Raise what tasks raised, here."""
    for number in range(count):
        handle = app.send_task("jobs.fail", [number])
        try:
            handle.get(timeout=PATIENCE)
        except ValueError:
            handle.forget()


def reports(count: int) -> None:
    """Progress reports, a hundred by each task."""
    for part in parts(count, 100):
        handle = app.send_task("jobs.report", [part])
        handle.get(timeout=PATIENCE)
        handle.forget()


def revocations(count: int) -> None:
    """Revoke tasks that have not ended, or have."""
    for part in parts(count):
        # One that was forgotten before it ran leaves a record of its own, which expires.
        request = Request(name="jobs.echo", args=(1,), result_expires=EXPIRES)
        handles = app.send([request] * part)
        for handle in handles:
            handle.revoke()
        app.ResultSet([handle.id for handle in handles]).forget()


def callbacks(count: int) -> None:
    """Be called when tasks end."""
    for part in parts(count):
        called = threading.Semaphore(0)
        handles = app.send([Request(name="jobs.echo", args=(1,)) for _ in range(part)])
        for handle in handles:
            handle.add_done_callback(lambda _, called=called: called.release())  # type: ignore[misc]
        for _ in range(part):
            assert called.acquire(timeout=PATIENCE)
        app.ResultSet([handle.id for handle in handles]).forget()


def awaits(count: int) -> None:
    """Wait in coroutines, many at a time, half of them for a moment only."""

    async def one(handle: AsyncResult[Any], number: int) -> None:
        if number % 2:
            try:
                await handle.aget(timeout=SHORT)
            except ResultTimeoutError:
                return
        assert await handle.aget(timeout=PATIENCE) == 1

    async def all_of(part: int) -> None:
        handles = app.send([Request(name="jobs.echo", args=(1,)) for _ in range(part)])
        await asyncio.gather(*(one(handle, n) for n, handle in enumerate(handles)))
        results = app.ResultSet([handle.id for handle in handles])
        await results.aget(timeout=PATIENCE)
        results.forget()

    for part in parts(count):
        asyncio.run(all_of(part))


def abandoned(count: int) -> None:
    """Send tasks and drop the handles unread; their results expire."""
    for part in parts(count):
        app.send([Request(name="jobs.echo", args=(1,), result_expires=EXPIRES)] * part)


def timeouts(count: int) -> None:
    """Wait in vain, one id at a time."""
    for number in range(count):
        try:
            app.results.wait(f"nobody-{number}", timeout=SHORT)
        except ResultTimeoutError:
            continue


def timeouts_of_many(count: int) -> None:
    """Wait in vain for many ids at a time."""
    for part in parts(count):
        ids = [f"nobody-{count}-{part}-{number}" for number in range(part)]
        try:
            for _ in app.results.wait_many(ids, timeout=SHORT):
                raise AssertionError("nobody stores these")
        except ResultTimeoutError:
            continue


def queues(count: int) -> None:
    """Use queues of ever new names."""
    for part in parts(count, FEW):
        names = [f"{os.urandom(8).hex()}-{number}" for number in range(part)]
        handles = app.send([Request(name="jobs.echo", args=(1,), queue=name) for name in names])
        purged = app.broker.call(lambda broker, seconds, names=names: broker.purge(names, seconds))  # type: ignore[misc]
        assert purged == part
        app.ResultSet([handle.id for handle in handles]).forget()


def empty_fetches(count: int) -> None:
    """Look for messages where there are none, as an idle worker does."""
    for number in range(count):
        wait = MOMENT if number else LONG_ENOUGH
        app.broker.call(
            lambda broker, _, wait=wait: broker.fetch(  # type: ignore[misc]
                ["idle"], limit=1, wait=wait, lease=PATIENCE, worker="idler"
            )
        )
    app.broker.call(
        lambda broker, seconds: broker.beat("idler", [], [], lease=PATIENCE, timeout=seconds)
    )


def apps(count: int) -> None:
    """Open an app, use it and close it; a driver may end its own threads a little later."""
    before = threading.active_count()
    for _ in range(count):
        with App() as another:
            another.results.load("nobody")
            another.broker.call(lambda broker, seconds: broker.survey(["idle"], seconds))
    deadline = clock.Deadline(PATIENCE)
    while threading.active_count() > before and not deadline.expired:
        clock.sleep(0.01)


KINDS: Final[dict[str, Callable[[int], None]]] = {
    each.__name__: each
    for each in (
        abandoned,
        apps,
        awaits,
        callbacks,
        coroutines,
        empty_fetches,
        errors,
        exchanges,
        failures,
        queues,
        reports,
        retries,
        revocations,
        singles,
        timeouts,
        timeouts_of_many,
    )
}


def worker_measure() -> dict[str, int]:
    """Return what the worker's process holds, once it has done all that was sent before."""
    handle = app.send_task("jobs.census")
    found: dict[str, int] = handle.get(timeout=PATIENCE)
    handle.forget()
    return found


def fill() -> None:
    """Have all that is remembered of the latest so many ids filled, so that it grows no more."""
    try:
        app.results.wait("nobody", timeout=LONG_ENOUGH)  # nothing is remembered before
    except ResultTimeoutError:
        app.results.forget(f"never-{number}" for number in range(MANY))


def main(rounds: int, orders: list[str]) -> None:
    """Do each kind of work as often as is asked, and tell what it left."""
    fill()
    for order in orders:
        name, _, count = order.partition("=")
        each = max(1, int(count) // rounds)
        began = clock.monotonic()
        KINDS[name](each)
        told = [json.dumps([worker_measure(), measure()])]  # text, so that keeping it costs little
        for _ in range(rounds):
            KINDS[name](each)
            told.append(json.dumps([worker_measure(), measure()]))
        seconds = clock.monotonic() - began
        worker, caller = zip(*map(json.loads, told), strict=True)
        found = {"kind": name, "each": each, "caller": caller, "worker": worker}
        print(json.dumps(found | {"seconds": seconds}), flush=True)
    app.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
