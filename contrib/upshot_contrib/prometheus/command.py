"""`upshot metrics`: serve what workers count, and what the broker holds, to Prometheus."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final

import click

from upshot.cli.exits import OK
from upshot.cli.parameters import SECONDS, app_option, queues_option
from upshot.cli.printing import show_note
from upshot.cli.target import load
from upshot.errors import ConfigError, UnsupportedError

__all__ = ["metrics"]

_LAST_PORT: Final = 65_535


@click.command()
@app_option
@queues_option
@click.option(
    "--port",
    type=click.IntRange(min=0, max=_LAST_PORT),
    required=True,
    help="Where to listen; 0 takes one that is free.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Which address to listen on.")
@click.option(
    "--timeout",
    type=SECONDS,
    default=5.0,
    show_default=True,
    help="How long a scrape waits for the broker.",
)
def metrics(target: str, queues: tuple[str, ...], port: int, host: str, timeout: float) -> int:
    """Serve metrics to Prometheus until told to stop.

    They are those of all processes that write into the folder PROMETHEUS_MULTIPROC_DIR, and the
    lengths and workers of the queues. Without that folder there are the queues only.

    Exit codes: 0 stopped by SIGTERM or Ctrl-C; 1 the broker keeps its messages in one process;
    2 wrong usage or configuration, or a port that is taken.
    """
    # Not before it is used: prometheus-client may not be installed, and there is `upshot --help`.
    from upshot_contrib.prometheus import QueueCollector
    from upshot_contrib.prometheus.serving import serve, shared_registry

    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    with load(target) as app:
        if not app.broker.current.capabilities.shared:
            raise UnsupportedError(
                f"{app.broker_url} keeps messages inside the process that sent them: from here "
                "there is nothing to see"
            )
        registry, has_folder = shared_registry()
        registry.register(QueueCollector(app, queues=queues, timeout=timeout))
        if not has_folder:
            show_note("PROMETHEUS_MULTIPROC_DIR is not set: only queues are served")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stopped)
        try:
            serving = serve(registry, host=host, port=port)
        except OSError as exc:
            raise ConfigError(f"nothing can listen on {host}:{port}: {exc.strerror}") from exc
        with serving as address:
            show_note(f"metrics are at http://{address}/metrics")
            stop.wait()
    return OK
