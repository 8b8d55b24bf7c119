"""What Django does around a request, done around a task."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Final

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import close_old_connections, reset_queries

__all__ = ["as_a_request"]

_of_thread: Final = threading.local()


@contextlib.contextmanager
def as_a_request() -> Generator[None]:
    """Treat a task as Django treats a request: with connections that work and are not too old.

    What a coroutine asks of the ORM is done on another thread, with connections of its own. Left
    alone, asgiref takes one such thread for all; here each thread that runs tasks has one, so that
    it looks after its own tasks' connections only.
    """
    aside = _aside()
    token = SyncToAsync.thread_sensitive_context.set(aside)
    _renew(aside, reset_queries)
    _renew(aside, close_old_connections)
    try:
        yield
    finally:
        _renew(aside, close_old_connections)
        SyncToAsync.thread_sensitive_context.reset(token)


def _renew(aside: ThreadSensitiveContext, renew: Callable[[], object]) -> None:
    """Do something for this thread's connections, and for those of its coroutines."""
    renew()
    executor = SyncToAsync.context_to_thread_executor.get(aside)
    if executor is not None:
        executor.submit(renew)  # in turn, so nobody has to wait for it


def _aside() -> ThreadSensitiveContext:
    """Return what names, for asgiref, the thread beside this one; it ends with this one."""
    found: ThreadSensitiveContext | None = getattr(_of_thread, "aside", None)
    if found is None:
        found = _of_thread.aside = ThreadSensitiveContext()
    return found
