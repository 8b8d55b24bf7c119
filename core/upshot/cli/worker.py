"""`upshot worker`: run the app's tasks until told to stop."""

from __future__ import annotations

import signal

import click

from upshot.cli.parameters import SECONDS, app_option, queues_option
from upshot.cli.target import load
from upshot.worker import STOPS, WorkerOptions, run

__all__ = ["worker"]

_FORMATS = ("text", "json")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.command()
@app_option
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    help="Processes; by default as set, or one for each CPU.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Tasks at once in each process.")
@queues_option
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="INFO",
    envvar="UPSHOT_LOG_LEVEL",
    show_default=True,
    show_envvar=True,
    help="Log this and what is graver.",
)
@click.option(
    "--log-format",
    type=click.Choice(_FORMATS),
    help="Text, or one JSON object a line; by default as set (worker_log_format).",
)
@click.option("-n", "--name", help="What others see; by default the host and process id.")
@click.option("--burst", is_flag=True, help="Stop when nothing is due.")
@click.option("--reload", is_flag=True, help="Start again when a module's file changes.")
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    help="Replace a process after so many tasks.",
)
@click.option("--grace", type=SECONDS, help="How long a stop waits for running tasks.")
def worker(
    target: str,
    concurrency: int | None,
    threads: int | None,
    queues: tuple[str, ...],
    loglevel: str,
    log_format: str | None,
    name: str | None,
    burst: bool,
    reload: bool,
    max_tasks_per_child: int | None,
    grace: float | None,
) -> int:
    """Run tasks until told to stop.

    SIGTERM, SIGHUP or Ctrl-C finishes the running tasks; a second one, SIGQUIT, or the end of the
    grace gives them back to their queues. The worker has gone within a second after that, whether
    its services answer or not.

    Exit codes: 0 stopped with nothing unfinished; 1 a running task was cut short, or with --burst a
    process died or the broker could not be reached; 2 wrong usage or configuration, or an app that
    cannot be imported; 130 Ctrl-C before the worker had started.
    """
    options = WorkerOptions(
        target=target,
        concurrency=concurrency,
        threads=threads,
        queues=queues,
        name=name,
        loglevel=loglevel.upper(),
        log_format=log_format,
        burst=burst,
        reload=reload,
        max_tasks_per_child=max_tasks_per_child,
        grace=grace,
    )
    code = run(load(target), options)
    # While the interpreter ends it gives signals their defaults back: one more would be its end.
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    return code
