"""Ends the interpreter while everything is open: `leaving.py HOW`.

Prints "READY" when the end begins, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from upshot import App
from upshot.errors import UpshotError
from upshot.result import AsyncResult

LONG = 3600.0  # seconds that nobody waits

app = App()


def send() -> AsyncResult[Any]:
    """Send a task that nobody runs."""
    return app.send_task("jobs.echo", [1])


def wait() -> None:
    """Wait for what does not come, and say nothing about how that ended."""
    with suppress(UpshotError):
        send().get(timeout=LONG)


def open_everything() -> None:
    """Read, wait in two threads, register a callback, and send."""
    send().ready()
    send().add_done_callback(print)
    for _ in range(2):
        threading.Thread(target=wait, daemon=True).start()
    while app.results.stats()["waiters"] < 2:
        time.sleep(0.01)


def fall_off() -> None:
    """Come to the end of the program; with nothing open, what an interpreter's end costs."""


def leave() -> None:
    """Exit with a code that is not zero."""
    sys.exit(0)


def leave_in_thread() -> None:
    """Exit in a thread, which ends the thread only."""
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()


def be_interrupted() -> None:
    """Be interrupted by Ctrl-C while waiting."""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with suppress(KeyboardInterrupt):
        wait()


def forget_coroutines() -> None:
    """Cancel coroutines that wait, and leave one that never began to."""

    async def main() -> None:
        handle = send()
        tasks = [asyncio.create_task(handle.aget(timeout=LONG)) for _ in range(3)]
        await asyncio.sleep(0.1)
        del tasks

    asyncio.run(main())


def fork() -> None:
    """Let a child end as the parent does, after it has used what it inherited."""
    pid = os.fork()
    if pid == 0:
        send().ready()
    else:
        os.waitpid(pid, 0)


def wait_in_child() -> None:
    """End the parent's main thread while a child's wait was inherited and is gone."""
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.2)
    else:
        os.waitpid(pid, 0)


def close_in_part() -> None:
    """Close the broker only."""
    app.broker.close()


WAYS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        fall_off,
        leave,
        leave_in_thread,
        be_interrupted,
        forget_coroutines,
        fork,
        wait_in_child,
        close_in_part,
    )
}

if __name__ == "__main__":
    if sys.argv[2:] != ["closed"]:
        open_everything()
    os.write(1, b"READY\n")
    WAYS[sys.argv[1]]()
