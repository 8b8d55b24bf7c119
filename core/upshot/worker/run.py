"""Starts a worker and stays with it until it has stopped."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO, final

from upshot.app import App
from upshot.errors import ConfigError
from upshot.record import printable
from upshot.worker.banner import banner
from upshot.worker.manager import ServiceManager
from upshot.worker.options import WorkerOptions
from upshot.worker.reload import Watcher
from upshot.worker.supervisor import Supervisor

__all__ = ["run"]

_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"


@final
class _LogFormatter(logging.Formatter):
    """Lets no text that is logged pass for a line of the log, or drive a terminal.

    A task's exception is whatever its arguments made of it: control characters are escaped, and
    every line of a record but its first is indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).split("\n")
        return "\n".join([printable(first), *(f"    {printable(line)}" for line in others)])


@final
class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a task may have closed what it was.

    A process that was started without a stderr has None.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if sys.stderr is not None:
            super().emit(record)


def run(app: App, options: WorkerOptions) -> int:
    """Run a worker for `app` in this process and its children; returns when it has stopped.

    A service manager that has set NOTIFY_SOCKET is told how it goes: systemd's `Type=notify`.

    Returns:
        0 after a clean stop; 1 if running tasks were given back instead of finished, or if in
        burst mode a process was lost or a service could not be reached.

    Raises:
        ConfigError: the app's broker or backend lives in one process only, or a setting is wrong.
    """
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(_LogFormatter(_FORMAT))
    logging.basicConfig(level=options.loglevel.upper(), handlers=[handler])
    manager = ServiceManager()
    app.close()  # whatever importing the app's module opened: connections do not cross a fork
    settings = app.settings
    processes = options.concurrency or settings.worker_concurrency or os.cpu_count() or 1
    threads = options.threads or settings.worker_threads
    _check(app)
    if sys.stderr is not None:
        sys.stderr.write(banner(app, options, processes=processes, threads=threads) + "\n")
        sys.stderr.flush()
    supervisor = Supervisor(
        app,
        options,
        processes=processes,
        threads=threads,
        has_changed=Watcher() if options.reload else lambda: False,
        manager=manager,
    )
    code = supervisor.run()
    if supervisor.changed:
        logging.getLogger("upshot.worker").info("a file has changed: starting again")
        manager.restore()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    return code


def _check(app: App) -> None:
    """Refuse what could never work: a worker that nobody can reach, or that opens nothing.

    Each of its processes would end as soon as it is started, and be replaced for ever.
    """
    with app:
        _ = app.results, app.codecs
        if not app.broker.current.capabilities.shared:
            raise ConfigError(
                f"{app.broker_url} lives inside one process, so a worker process never sees its "
                "messages; use app.running() there, or choose another broker"
            )
