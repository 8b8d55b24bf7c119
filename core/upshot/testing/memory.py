"""An app of the user's, with its messages and results in the memory of the test's process."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from upshot.app import App
from upshot.errors import ConfigError
from upshot.testing.releases import watch

__all__ = ["in_memory"]

_CHOSEN: Final = ("broker_url", "result_backend")
# A day's travel must not take a task from the worker that runs it; this is more than a century.
_LEASE: Final = 4e9  # seconds
_TIMEOUT: Final = 5.0  # seconds; memory answers at once


@contextmanager
def in_memory(app: App, **settings: Any) -> Generator[App]:
    """Keep the app's messages and results in memory inside the `with` block.

    They are the block's own: it begins with none, and leaves none. Tasks stay registered, with what
    they took of the settings then. What the app had open before is put aside, and not touched.

    Args:
        app: whose tasks to test.
        settings: others that count inside the block, by their names.

    Raises:
        ConfigError: a setting is unknown or wrong, it names a service, or `app.running()` is not
            over.
    """
    for name in _CHOSEN:
        if name in settings:
            raise ConfigError(f"{name} is what in_memory chooses; test on a service without it")
    url = f"memory://test-{uuid.uuid4().hex}"
    chosen = {"result_offload": None, "worker_lease": _LEASE, **settings}
    with app.overridden(broker_url=url, result_backend=url, **chosen):
        watch(app)
        try:
            yield app
        finally:
            _clear(app)


def _clear(app: App) -> None:
    """Remove what is left: rooms in memory outlive whoever opened them."""
    backend = app.results.backend
    backend.delete(list(backend.scan("", _TIMEOUT)), _TIMEOUT)
    app.broker.call(lambda broker, seconds: broker.purge(app.queues(), seconds))
