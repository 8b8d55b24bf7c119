"""How soon a result is there after it was stored, and what waiting for it costs.

    python -m benchmarks.waits                         every service that can be started here
    python -m benchmarks.waits redis rpc               these; names as for --backend
    python -m benchmarks.waits redis://localhost       one that runs already
    python -m benchmarks.waits --samples 1000 redis    more samples than 200

Three tables come out. All clocks are CLOCK_MONOTONIC, which Linux shows all processes alike.

1. From stored to got. This process waits in `get()`; another one stores the result, 25 to 75 ms
   later. "stored" is the moment when its call returned, which can be after the waiter has the
   result; "store called" is the moment when it began. A raw round trip is made before each
   sample, so that both meet the same machine. For `memory://` the other process is a thread.
2. Reads while results are awaited that do not come, after a second of it.
3. One wait for 10 000 results: connections as the service counts them, threads, and the time from
   the first stored to the last got, with the storing process storing 1 000 at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.raw import FLOORS, READS, RoundTrip
from upshot import App, registry
from upshot.client import ResultClient
from upshot.request import Request
from upshot.result_set import ResultSet
from upshot.url import Url
from upshot_conformance.harness import HARNESSES, Harness, UnavailableError
from upshot_conformance.records import success
from upshot_conformance.selection import SelectionError, Selector, Target

DELAY: Final = (0.025, 0.075)  # seconds from the start of a wait until its result is stored
PATIENCE: Final = 60.0  # seconds for anything that should come at once
AWAITED: Final = (1, 100, 1000)  # ids of the second table
SETTLE: Final = 1.0  # seconds of waiting before reads are counted
COUNTED: Final = 2.0  # seconds of counting
MANY: Final = 10_000
BATCH: Final = 1000


@dataclass
class Report:
    """What was measured of one service.

    Attributes:
        target: the service.
        push: whether it notifies, as its backend declares once it is connected.
        floor: seconds of each raw round trip; empty if there is nothing to measure.
        called: seconds from the call that stores until `get()` returned, for each sample.
        stored: seconds from that call's return until then.
        reads: per number of awaited ids, our reads per second, and the server's own count per
            second, None if it is not asked.
        connections: of both processes during the long wait; None if the service cannot tell.
        threads: the names of those of this process that served the long wait.
        all_home: seconds from the first of `MANY` stored to the last one got.
    """

    target: Target
    push: bool = False
    floor: list[float] = field(default_factory=list[float])
    called: list[float] = field(default_factory=list[float])
    stored: list[float] = field(default_factory=list[float])
    reads: dict[int, tuple[float, float | None]] = field(
        default_factory=dict[int, tuple[float, float | None]]
    )
    connections: int | None = None
    threads: list[str] = field(default_factory=list[str])
    all_home: float = 0.0


# -- the other side -------------------------------------------------------------------------------


def store_on_demand(pipe: Connection, url: str, namespace: str) -> None:
    """Store what comes through the pipe, until None comes: the storing process.

    An order is the ids, where their results are to be sent, and the seconds to wait before. The
    answer is when the call that stores began, and when it returned.
    """
    with open_client(url, namespace) as client:
        client.load("connects")
        pipe.send(None)
        while (order := pipe.recv()) is not None:
            task_ids, reply_to, delay = order
            records = [client.encode(success(each, 1), reply_to=reply_to) for each in task_ids]
            time.sleep(delay)
            began = time.monotonic()
            client.store_encoded(records)
            pipe.send((began, time.monotonic()))


def open_client(url: str, namespace: str) -> ResultClient:
    """Open a result backend by itself, without an app."""
    parsed = Url.parse(url)
    make = registry.backend_class(parsed)
    return ResultClient(lambda: make(parsed), url=parsed, namespace=namespace)


@contextlib.contextmanager
def storer(app: App, url: str) -> Generator[Connection]:
    """Run `store_on_demand` for an app's results: in a process, or a thread for `memory://`."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, url, app.settings.namespace)
    if app.results.capabilities.shared or app.results.backend.reply_to:
        context = multiprocessing.get_context("spawn")
        other: Any = context.Process(target=store_on_demand, args=arguments, daemon=True)
    else:
        other = threading.Thread(target=store_on_demand, args=arguments, daemon=True)
    other.start()
    ours.recv()
    yield ours
    ours.send(None)
    other.join(PATIENCE)


# -- measuring ------------------------------------------------------------------------------------


def measure(target: Target, samples: int) -> Report:
    """Measure one running service."""
    report, name = Report(target), f"bench-{uuid.uuid4().hex[:8]}"
    settings = {"broker": f"memory://{name}", "namespace": name, "no_worker_warning": None}
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(App(backend=target.text, **settings))
        app.results.load("connects")
        report.push = app.results.capabilities.push
        pipe = stack.enter_context(storer(app, target.text))
        measure_delay(report, app, pipe, samples)
        for count in AWAITED:
            report.reads[count] = count_reads(target, count)
        measure_many(report, app, pipe)
    return report


def measure_delay(report: Report, app: App, pipe: Connection, samples: int) -> None:
    """Take raw round trips and waits in turn; the first ten are for warming up."""
    dice = random.Random(1)
    reply_to = app.results.backend.reply_to
    with floor(report.target.url) as round_trip:
        for number in range(samples + 10):
            handle = app.send_task("bench.task")
            pause, delay = dice.uniform(*DELAY), dice.uniform(*DELAY)
            time.sleep(pause)  # the raw round trip, too, comes after a time of quiet
            if round_trip is not None:
                began = time.monotonic()
                round_trip()
                report.floor.append(time.monotonic() - began)
            pipe.send(([handle.id], reply_to, delay))
            handle.get(timeout=PATIENCE)
            got = time.monotonic()
            called, stored = pipe.recv()
            report.called.append(got - called)
            report.stored.append(got - stored)
            handle.forget()
            if number == 9:
                for measured in (report.floor, report.called, report.stored):
                    measured.clear()


@contextlib.contextmanager
def floor(url: Url) -> Generator[RoundTrip | None]:
    """Open the raw driver, if there is one for this kind of service."""
    if url.scheme not in FLOORS:
        yield None
        return
    with FLOORS[url.scheme](url) as round_trip:
        yield round_trip


def count_reads(target: Target, count: int) -> tuple[float, float | None]:
    """Wait for ids that nobody stores; return reads per second, ours and as the server counts."""
    looks: list[int] = []
    base = registry.backend_class(target.url)

    def load(self: Any, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        looks.append(len(keys))
        return base.load(self, keys, timeout)

    counted = type(base.__name__, (base,), {"load": load})
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    client = ResultClient(lambda: counted(target.url), url=target.url, namespace=namespace)
    ids = [str(number) for number in range(count)]
    with contextlib.closing(client), contextlib.ExitStack() as stack:
        ask = READS.get(target.url.scheme)
        ask_server = stack.enter_context(ask(target.url)) if ask else None
        seconds = SETTLE + COUNTED + PATIENCE
        waiter = threading.Thread(
            target=lambda: list(client.wait_many(ids, timeout=seconds)), daemon=True
        )
        waiter.start()
        while client.stats()["waiters"] < count:
            time.sleep(0.005)
        time.sleep(SETTLE)
        before, server_before = len(looks), ask_server() if ask_server else 0
        began = time.monotonic()
        time.sleep(COUNTED)
        ours, server = len(looks) - before, (ask_server() if ask_server else 0) - server_before
        elapsed = time.monotonic() - began
        client.close()
        waiter.join(PATIENCE)
    return ours / elapsed, server / elapsed if ask_server else None


def measure_many(report: Report, app: App, pipe: Connection) -> None:
    """Wait for `MANY` results at once, and look at what that takes."""
    requests = [Request(name="bench.task", args=(number,)) for number in range(MANY)]
    with ResultSet[int](app.send(requests)) as results:
        ids = [handle.id for handle in results]
        feeder = threading.Thread(target=feed, args=(report, app, pipe, ids))
        feeder.start()
        for handle in results.as_completed(timeout=2 * PATIENCE):
            handle.get(timeout=0)
        got = time.monotonic()
        feeder.join(PATIENCE)
    report.all_home += got


def feed(report: Report, app: App, pipe: Connection, ids: Sequence[str]) -> None:
    """Have the results stored once all are awaited, and count what is open for that."""
    while app.results.stats()["waiters"] < len(ids):
        time.sleep(0.005)
    for start in range(0, len(ids), BATCH):
        pipe.send((ids[start : start + BATCH], app.results.backend.reply_to, 0.0))
        began, _ = pipe.recv()
        if start == 0:
            report.all_home = -began
    own = (threading.main_thread(), threading.current_thread())
    report.threads = sorted(each.name for each in threading.enumerate() if each not in own)
    harness = report.target.open_harness()
    if harness is not None:
        with contextlib.closing(harness), contextlib.suppress(UnavailableError):
            report.connections = harness.connections()


# -- showing --------------------------------------------------------------------------------------


def show(console: Console, reports: Sequence[Report]) -> None:
    """Print the three tables."""
    table = Table(title="From stored to got, one waiter: median (10 % to 90 %), ms")
    for column in ("service", "woken by", "raw round trip", "stored → got", "ratio"):
        table.add_column(column)
    table.add_column("store called → got")
    for report in reports:
        raw = statistics.median(report.floor) if report.floor else None
        ratio = "" if raw is None else f"{statistics.median(report.stored) / raw:.1f}"
        table.add_row(
            report.target.label,
            "push" if report.push else "poll",
            spread(report.floor),
            spread(report.stored),
            ratio,
            spread(report.called),
        )
    console.print(table)

    table = Table(
        title="Reads per second while ids are awaited: ours / by the server's own count",
        caption="memcached counts each key of a read, the others count commands",
    )
    table.add_column("service")
    for count in AWAITED:
        table.add_column(f"{count} id{'s' if count > 1 else ''}", justify="right")
    for report in reports:
        cells = (f"{ours:.1f} / {shown(server)}" for ours, server in report.reads.values())
        table.add_row(report.target.label, *cells)
    console.print(table)

    table = Table(title=f"One wait for {MANY} results")
    for column in ("service", "connections, both processes", "threads", "all home after, s"):
        table.add_column(column)
    for report in reports:
        connections = "?" if report.connections is None else str(report.connections)
        threads = ", ".join(report.threads)
        table.add_row(report.target.label, connections, threads, f"{report.all_home:.2f}")
    console.print(table)


def shown(number: float | None) -> str:
    """Return a number of reads; a dash for one that nobody counts."""
    return "-" if number is None else f"{number:.1f}"


def spread(seconds: Sequence[float]) -> str:
    """Return the median with the range of the middle 80 %, in milliseconds."""
    if not seconds:
        return ""
    tenths = statistics.quantiles(seconds, n=10)
    low, middle, high = (1000 * each for each in (tenths[0], statistics.median(seconds), tenths[8]))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def every_name() -> Iterator[str]:
    """Yield one name for each kind of service that has a harness, as `--backend=all` finds them."""
    names: dict[type[Harness], str] = {}
    for offer in registry.offers(HARNESSES):
        harness = registry.load(offer, Harness)  # type: ignore[type-abstract]  # a base to check against
        if offer.name == harness.scheme:
            names[harness] = offer.name
        else:
            names.setdefault(harness, offer.name)
    yield from names.values()


def main() -> int:
    """Measure what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("services", nargs="*", help="names or URLs; none means all there are")
    parser.add_argument("--samples", type=int, default=200, help="waits per service [200]")
    options = parser.parse_args()
    console, reports = Console(width=140), list[Report]()
    for name in options.services or every_name():
        with contextlib.ExitStack() as stack:
            try:
                (target,) = Selector(Path.cwd(), stack).select([name])
            except SelectionError as exc:
                console.print(f"left out: {exc}", markup=False)
                continue
            console.print(f"measuring {target.label} …", markup=False)
            reports.append(measure(target, options.samples))
    show(console, reports)
    return 0 if reports else 1


if __name__ == "__main__":
    sys.exit(main())
