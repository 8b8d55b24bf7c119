"""A tour of upshot on a real service, with a real worker: `make demo`.

    python examples/demo.py                              SQLite in a throw-away folder
    python examples/demo.py --backend redis://           a private Redis, if one is installed
    python examples/demo.py --backend redis://localhost  a Redis that runs already
    python examples/demo.py --backend mongodb:// --broker amqp://
                                                         any two services; both private here

It starts a worker process, sends it tasks, shows what comes home, checks each thing it shows, and
stops the worker. Exit code: 0 if everything was as it should be, otherwise 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from upshot import App, State, UpshotError, registry
from upshot.clock import Deadline
from upshot.errors import ConfigError, UnknownSchemeError
from upshot.url import Url

HERE: Final = Path(__file__).resolve().parent
PATIENCE: Final = 40.0  # seconds for all tasks together
STOP_PATIENCE: Final = 15.0  # seconds a worker gets to stop by itself
BATCH: Final = 1000


class Tour:
    """Prints what happens and counts what is not as it should be."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.deadline = Deadline(PATIENCE)
        self.failures = 0
        self._chapter = 0

    def chapter(self, title: str) -> None:
        """Begin a part of the tour."""
        self._chapter += 1
        self.console.print(f"\n[bold]{self._chapter}. {escape(title)}[/bold]")

    def show(self, name: str, value: object) -> None:
        """Print something that is not checked."""
        self._print(f"   {escape(name):<34} {escape(str(value))}")

    def check(self, name: str, found: object, expected: object) -> None:
        """Print something, and whether it is what it should be."""
        if found == expected:
            self._print(f" [green]✓[/green] {escape(name):<34} {escape(str(found))}")
            return
        self.failures += 1
        self._print(
            f" [red]✗[/red] {escape(name):<34} {escape(repr(found))} "
            f"[red]instead of {escape(repr(expected))}[/red]"
        )

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)  # no line breaks inside URLs


def main() -> int:
    """Run the tour; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", metavar="URL", help="where results are kept")
    parser.add_argument("--broker", metavar="URL", help="where messages wait [the same URL]")
    options = parser.parse_args()
    tour = Tour()
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upshot-demo-")))
            set_environment(stack, folder, options.broker, options.backend)
            run(tour, folder)
    except UpshotError as exc:
        tour.console.print(f"\n[red]✗ {escape(f'{type(exc).__name__}: {exc}')}[/red]")
        return 1
    if tour.failures:
        tour.console.print(f"\n[red]{tour.failures} things were not as they should be.[/red]")
        return 1
    tour.console.print("\n[green]Everything was as it should be.[/green]")
    return 0


def set_environment(
    stack: contextlib.ExitStack, folder: Path, broker: str | None, backend: str | None
) -> None:
    """Choose the services for this process and for the worker that it starts."""
    if backend == "rpc://" and not broker:
        broker = "amqp://"
    started: dict[str, str] = {}
    broker = broker and address(broker, started, stack)
    backend = backend and address(backend, started, stack)
    if broker is None and backend and carries_messages(backend):
        broker = backend
    broker = broker or f"sqlite:///{folder}/upshot.db"
    os.environ["UPSHOT_BROKER_URL"] = broker
    os.environ.pop("UPSHOT_RESULT_BACKEND", None)  # without one, it is the broker's own service
    if backend:
        os.environ["UPSHOT_RESULT_BACKEND"] = backend
    # A namespace of its own, so that a service that others use is left as it was found.
    os.environ["UPSHOT_NAMESPACE"] = f"demo-{uuid.uuid4().hex[:8]}"


def carries_messages(text: str) -> bool:
    """Tell whether a service can be a broker; MongoDB and memcached keep results only."""
    try:
        registry.broker_class(Url.parse(text))
    except UnknownSchemeError:
        return False
    return True


def address(text: str, started: dict[str, str], stack: contextlib.ExitStack) -> str:
    """Return the URL of a service: `text` itself, or of a private one if it names only a kind.

    `redis://` and `redis` name a kind. A private service ends with `stack`; `started` has those
    that were started before, since broker and backend of one kind are one service.

    Raises:
        ConfigError: nobody can start such a service here.
    """
    kind, _, rest = text.partition("://")
    if rest or text == "rpc://":  # this one means the broker's connection
        return text
    if kind not in started:
        # Imported here: only who asks for a private service needs it.
        from upshot_conformance.harness import HARNESSES, CannotStartError, Harness

        offers = {offer.name: offer for offer in registry.offers(HARNESSES)}
        if kind not in offers:
            known = ", ".join(sorted(offers))
            raise ConfigError(f"no private {kind!r} can be started; name a host, or one of {known}")
        harness = registry.load(offers[kind], Harness)  # type: ignore[type-abstract]  # a base to check against
        try:
            started[kind] = stack.enter_context(harness.start())
        except CannotStartError as exc:
            raise ConfigError(f"no private {kind}: {exc}") from exc
    return started[kind]


def run(tour: Tour, folder: Path) -> None:
    """Start a worker, go through the chapters, stop the worker."""
    from demo_tasks import app  # now that the environment is set, which an app reads once

    tour.console.rule("[bold]upshot[/bold]: run a function elsewhere, and bring its result home")
    tour.show("messages wait in (broker)", app.broker_url)
    tour.show("results are kept in (backend)", app.backend_url)
    with app:
        refuse_private(app)
        with worker(tour, folder):
            a_value(tour)
            a_failure(tour)
            a_coroutine(tour)
            a_progress(tour)
            a_batch(tour)
        what_is_left(tour)


def refuse_private(app: App) -> None:
    """Refuse a service that the worker, another process, would never reach.

    Raises:
        ConfigError: it lives in one process.
    """
    sent_home = bool(app.results.backend.reply_to)  # not shared, but the worker sends results here
    services = [
        (app.broker_url, app.broker.current.capabilities.shared),
        (app.backend_url, app.results.capabilities.shared or sent_home),
    ]
    for url, is_reached in services:
        if not is_reached:
            raise ConfigError(f"{url} lives in one process, and this tour's worker is another")


@contextlib.contextmanager
def worker(tour: Tour, folder: Path) -> Generator[None]:
    """Run `upshot worker` as a process of its own inside the `with` block."""
    command = ["-m", "upshot", "-A", "demo_tasks", "worker", "-c", "2", "-l", "WARNING"]
    log = folder / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=HERE, stdout=output, stderr=subprocess.STDOUT
        )
    tour.show("a worker runs as process", f"{process.pid}: upshot {' '.join(command[2:])}")
    try:
        yield
        tour.chapter("The worker is told to stop (SIGTERM)")
        process.send_signal(signal.SIGTERM)
        tour.check("its exit code", process.wait(STOP_PATIENCE), 0)
    except (UpshotError, subprocess.TimeoutExpired):
        tour.console.print(Panel(escape(log.read_text()[-3000:]), title="what the worker said"))
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def a_value(tour: Tour) -> None:
    """A function is called here, runs there, and its value comes home."""
    from demo_tasks import add

    tour.chapter("A value: add.delay(2, 3)")
    result = add.delay(2, 3)
    tour.show("its id", result.id)
    tour.show("its state just after sending", result.state)
    tour.check("get() returns", result.get(timeout=tour.deadline.left()), 5)
    tour.check("its state now", result.state, State.SUCCESS)
    tour.check("get() again returns", result.get(timeout=0), 5)
    tour.show("it ran on the worker", result.worker)
    result.forget()
    tour.check("its state after forget()", result.state, State.PENDING)


def a_failure(tour: Tour) -> None:
    """An exception comes home as the class it was, with its attributes and its traceback."""
    from demo_tasks import OutOfStockError, order

    tour.chapter('A failure: order.delay("tea", 5)')
    with order.delay("tea", 5) as result:
        error = result.exception(timeout=tour.deadline.left())
        tour.check("its state", result.state, State.FAILURE)
        tour.check("the exception's class", type(error).__name__, "OutOfStockError")
        if isinstance(error, OutOfStockError):
            tour.check("its message", str(error), "only 3 of 'tea' left")
            tour.check("its attributes", (error.item, error.left), ("tea", 3))
        traceback = result.traceback or ""
        tour.check("a remote traceback came home", "in order" in traceback, True)
        tour.console.print(Panel(escape(traceback.rstrip()), title="as the worker saw it"))


def a_coroutine(tour: Tour) -> None:
    """The task is `async def`, and the caller awaits it."""
    from demo_tasks import greet

    async def ask() -> str:
        with greet.delay("Ada") as result:
            return await result.aget(timeout=tour.deadline.left())

    tour.chapter('A coroutine on both sides: await greet.delay("Ada")')
    tour.check("it returns", asyncio.run(ask()), "Hello, Ada!")


def a_progress(tour: Tour) -> None:
    """A task says how far it is while it runs."""
    from demo_tasks import count_to

    tour.chapter("Progress: count_to.delay(5)")
    with count_to.delay(5) as result:
        seen: list[float] = []
        while not result.ready() and not tour.deadline.expired:
            info = result.info or {}
            if "current" in info and info["current"] not in seen:
                seen.append(info["current"])
                tour.show(f"state {result.state}", f"{info['current']} of {info['total']}")
            time.sleep(0.02)
        tour.check("seen while it ran, in order", bool(seen) and seen == sorted(seen), True)
        tour.check("get() returns", result.get(timeout=tour.deadline.left()), 5)


def a_batch(tour: Tour) -> None:
    """Many tasks are sent, waited for and released together."""
    from demo_tasks import square

    tour.chapter(f"A batch: square.map(range({BATCH}))")
    begun = time.perf_counter()
    with square.map(range(BATCH)) as results:
        tour.show("sent after", f"{time.perf_counter() - begun:.2f} seconds")
        values = results.get(timeout=tour.deadline.left())
        tour.show("all values home after", f"{time.perf_counter() - begun:.2f} seconds")
        tour.check("values", len(values), BATCH)
        tour.check("each the right one, in order", values == [n * n for n in range(BATCH)], True)
        tour.check("all successful", results.successful(), True)


def what_is_left(tour: Tour) -> None:
    """Everything was released: nothing stays in the service or in this process."""
    from demo_tasks import app

    tour.chapter("What is left")
    client = app.results
    tour.check("results not read or forgotten", len(app.outstanding()), 0)
    if client.capabilities.scan:
        tour.check("records in the backend", sum(1 for _ in client.scan()), 0)
    app.close()
    held = client.stats()
    tour.check("waits", held["keys"] + held["waiters"], 0)
    tour.check("connections that listen", held["listeners"], 0)
    threads = [each.name for each in threading.enumerate() if each.name.startswith("upshot")]
    tour.check("threads", threads, [])


if __name__ == "__main__":
    sys.exit(main())
