"""The project's app: `from upshot_contrib.django.app import app`, and then `@app.task`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Final

from django.db import close_old_connections, reset_queries

from upshot import App
from upshot_contrib.django.backend import open_django
from upshot_contrib.django.settings import make_app

__all__ = ["app"]


@contextlib.contextmanager
def _as_a_request() -> Generator[None]:
    """Treat a task as Django treats a request: with connections that work and are not too old."""
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


app: Final[App] = make_app()
app.around_task = _as_a_request

open_django()  # for `upshot -A upshot_contrib.django.app …`: Django imports all tasks then
