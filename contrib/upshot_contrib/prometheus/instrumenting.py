"""The one call that an application makes."""

from __future__ import annotations

import os
from typing import Final
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry

from upshot import App
from upshot.errors import ConfigError
from upshot_contrib.prometheus.counting import Counting
from upshot_contrib.prometheus.metrics import Metrics

__all__ = ["FOLDER", "check_folder", "instrument"]

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client shares metrics between processes."""

_made: Final[WeakKeyDictionary[CollectorRegistry, Metrics]] = WeakKeyDictionary()


def instrument(app: App, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Count what the app sends, runs and reads in this process, and in workers forked from it.

    Call it where the app is made, so that workers and callers both count. Several apps may count in
    one registry: their figures add up.

    The processes of a worker share no memory: start it with `PROMETHEUS_MULTIPROC_DIR` in its
    environment, a folder that is empty then, and serve what is counted there by `upshot metrics`.

    Args:
        app: not yet instrumented.
        registry: where the metrics are; as they are made, one of prometheus-client's own.

    Raises:
        ConfigError: the app is instrumented already, or `PROMETHEUS_MULTIPROC_DIR` is no folder.
    """
    if any(isinstance(each, Counting) for each in app.observers):
        raise ConfigError("this app is counted already: call instrument() once")
    check_folder()
    metrics = _made.get(registry)
    if metrics is None:
        metrics = _made[registry] = Metrics(registry)
    app.observe(Counting(app, metrics))


def check_folder() -> str | None:
    """Return the folder that processes share metrics in; None if none is named.

    Raises:
        ConfigError: what is named is no folder.
    """
    folder = os.environ.get(FOLDER)
    if folder and not os.path.isdir(folder):
        raise ConfigError(f"{FOLDER} is {folder!r}, which is no folder: make it, and keep it empty")
    return folder or None
