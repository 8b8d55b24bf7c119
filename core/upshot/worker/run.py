"""Starts a worker and stays with it until it has stopped."""

from __future__ import annotations

import logging
import os
import sys

from upshot.app import App
from upshot.errors import ConfigError
from upshot.worker.banner import banner
from upshot.worker.logs import begin_logging
from upshot.worker.manager import ServiceManager
from upshot.worker.options import WorkerOptions
from upshot.worker.reload import Watcher
from upshot.worker.supervisor import Supervisor

__all__ = ["run"]


def run(app: App, options: WorkerOptions) -> int:
    """Run a worker for `app` in this process and its children; returns when it has stopped.

    A service manager that has set NOTIFY_SOCKET is told how it goes: systemd's `Type=notify`.

    Returns:
        0 after a clean stop; 1 if running tasks were given back instead of finished, or if in
        burst mode a process was lost or a service could not be reached.

    Raises:
        ConfigError: the app's broker or backend lives in one process only, or a setting is wrong.
    """
    app.close()  # whatever importing the app's module opened: connections do not cross a fork
    settings = app.settings
    log_format = options.log_format or settings.worker_log_format
    begin_logging(options.loglevel.upper(), log_format)
    manager = ServiceManager()
    processes = options.concurrency or settings.worker_concurrency or os.cpu_count() or 1
    threads = options.threads or settings.worker_threads
    _check(app)
    lines = banner(app, options, processes=processes, threads=threads)
    if log_format == "json":
        logging.getLogger("upshot.worker").info("%s", lines)
    elif sys.stderr is not None:
        sys.stderr.write(lines + "\n")
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
