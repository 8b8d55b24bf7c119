"""Threads that begin at the same moment and are all accounted for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["start", "together"]

T = TypeVar("T")


def start(action: Callable[[], T]) -> Future[T]:
    """Run `action` in a thread of its own; a thread that hangs does not keep the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as exc:  # whatever ended the thread is the caller's to see
            future.set_exception(exc)

    threading.Thread(target=run, name="conformance", daemon=True).start()
    return future


def together(actions: Sequence[Callable[[], T]], *, within: float) -> list[T]:
    """Run all actions at once, each in a thread of its own, and return what each returned.

    Raises:
        TimeoutError: some thread did not end `within` seconds.
        Exception: what the first of the failed actions raised.
    """
    barrier = threading.Barrier(len(actions))

    def gated(action: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            barrier.wait(within)
            return action()

        return run

    futures = [start(gated(action)) for action in actions]
    return [future.result(within) for future in futures]
