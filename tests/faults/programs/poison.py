"""Tasks that take their process down, and tasks that leave it in disorder."""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import faulthandler
import gc
import locale
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import jobs  # type: ignore[import-not-found]  # it lies beside this one where it is run

from upshot import App

app: App = jobs.app
note: Callable[[], object] = jobs.note

LONG = 3600.0  # seconds that nobody waits
FOUND = (os.getcwd(), signal.SIG_DFL)

# -- those that end the process ---------------------------------------------------------------


@app.task
def segfault() -> None:
    """Read what is not there."""
    note()
    faulthandler.disable()
    ctypes.string_at(0)


@app.task
def leave(code: int) -> None:
    """Exit past every handler."""
    note()
    os._exit(code)


@app.task
def be_killed() -> None:
    """End as the kernel ends what takes all the memory there is."""
    note()
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def leave_with_child() -> None:
    """Exit while a process that was forked here lives on, with all that it inherited."""
    note()
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    os._exit(3)


@app.task
def close_descriptors() -> None:
    """Close what belongs to others: databases, sockets, pipes."""
    note()
    os.closerange(3, 51)


@app.task(time_limit=1)
def hold_the_interpreter() -> None:
    """Keep every other thread of the process from running."""
    note()
    re.match(r"(a+)+$", "a" * 64 + "b")


# -- those that end otherwise -------------------------------------------------------------------


@app.task
def raise_(name: str) -> None:
    """Raise a built-in exception."""
    note()
    raise getattr(builtins, name)("poison")


@app.task
async def raise_in_loop(name: str) -> None:
    """Raise a built-in exception in a coroutine."""
    note()
    raise getattr(builtins, name)("poison")


@app.task
def recurse() -> None:
    """Call itself for ever."""
    recurse()


@app.task
def eat_memory() -> int:
    """Ask for more than the process may have."""
    import resource

    note()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**31, before[1]))
    try:
        return len(bytearray(2**33))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@app.task(time_limit=1)
def block() -> None:
    """Wait for ever."""
    note()
    time.sleep(LONG)


@app.task
def ask(name: str, args: list[Any]) -> Any:
    """Wait for another task."""
    note()
    return app.send_task(name, args).get(timeout=60)


# -- those that leave disorder ------------------------------------------------------------------


def _fork_and_return() -> None:
    if os.fork() == 0:
        return  # into whatever called this


def _fork_and_live() -> None:
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)


def _leave_threads() -> None:
    for daemon in (True, False):
        threading.Thread(target=time.sleep, args=(LONG,), daemon=daemon).start()


def _close_standard() -> None:
    for number in (0, 1, 2):
        os.close(number)


def _close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def _replace_streams() -> None:
    sys.stdout = sys.stderr = None
    sys.excepthook = print
    faulthandler.disable()


def _go_nowhere() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def _take_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


def _mask_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _set_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.2)


def _set_umask() -> None:
    os.umask(0o777)


def _bend_interpreter() -> None:
    gc.disable()
    sys.setrecursionlimit(80)


def _bend_surroundings() -> None:
    locale.setlocale(locale.LC_ALL, "C")
    for name in os.environ.keys() - {"LEDGER"}:
        del os.environ[name]
    time.time = lambda: 0.0


def _silence_logging() -> None:
    logging.disable()
    logging.shutdown()
    logging.getLogger().handlers.clear()


def _run_loops() -> None:
    async def listen() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print)

    asyncio.run(listen())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(listen())
    loop.close()


def _close_app() -> None:
    app.close()


DISORDER: dict[str, Callable[[], None]] = {
    "fork_and_return": _fork_and_return,
    "fork_and_live": _fork_and_live,
    "leave_threads": _leave_threads,
    "close_standard": _close_standard,
    "close_streams": _close_streams,
    "replace_streams": _replace_streams,
    "go_nowhere": _go_nowhere,
    "take_signals": _take_signals,
    "mask_signals": _mask_signals,
    "set_alarm": _set_alarm,
    "set_umask": _set_umask,
    "bend_interpreter": _bend_interpreter,
    "bend_surroundings": _bend_surroundings,
    "silence_logging": _silence_logging,
    "run_loops": _run_loops,
    "close_app": _close_app,
}


@app.task
def disturb(how: str) -> str:
    """Leave the process otherwise than it was."""
    note()
    DISORDER[how]()
    return how


@app.task
async def leave_bombs() -> str:
    """Leave coroutines behind that end the loop, and one that will not end itself."""
    note()

    async def bomb(kind: type[BaseException]) -> None:
        await asyncio.sleep(0.05)
        raise kind("left behind")

    async def stay() -> None:
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                continue

    kinds = (SystemExit, KeyboardInterrupt, ValueError)
    _LEFT.extend(asyncio.create_task(bomb(kind)) for kind in kinds)
    _LEFT.append(asyncio.create_task(stay()))
    return "bombs"


_LEFT: list[asyncio.Task[None]] = []


@app.task
async def echo_in_loop(value: object) -> object:
    """Return the argument, through a loop that others have used."""
    note()
    await asyncio.sleep(0.1)
    return value


@app.task
def look() -> dict[str, Any]:
    """Tell in what state this process is."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT)]
    umask = os.umask(0)
    os.umask(umask)
    return {
        "handlers": all(map(callable, handlers)),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "folder": os.getcwd() == FOUND[0],
        "umask": oct(umask),
        "gc": gc.isenabled(),
        "recursion": sys.getrecursionlimit() >= 1000,
        "descriptors": [number for number in (0, 1, 2) if _is_open(number)],
        "streams": not (sys.stdout.closed or sys.stderr.closed),
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
