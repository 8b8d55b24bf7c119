"""`upshot -A tasks worker`."""

from __future__ import annotations

import sys

import click

from upshot.cli.target import app_option, load_app, target_of
from upshot.worker import WorkerOptions, run

__all__ = ["command"]

_LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@click.command("worker")
@app_option
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Processes [number of CPUs].")
@click.option("--threads", type=click.IntRange(1), help="Tasks at once in each process [1].")
@click.option("-Q", "--queues", default="", help="Comma-separated [all that the tasks name].")
@click.option("-n", "--name", help="What others see [host:pid].")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
)
@click.option("--burst", is_flag=True, help="Stop when nothing is due.")
@click.option("--reload", is_flag=True, help="Start again when a module's file changes.")
@click.option("--max-tasks-per-child", type=click.IntRange(1), help="Then replace a process.")
@click.option("--grace", type=click.FloatRange(0), help="Seconds that a stop waits for tasks.")
@click.pass_context
def command(
    ctx: click.Context,
    target: str | None,
    concurrency: int | None,
    threads: int | None,
    queues: str,
    name: str | None,
    loglevel: str,
    burst: bool,
    reload: bool,
    max_tasks_per_child: int | None,
    grace: float | None,
) -> None:
    """Run tasks until stopped.

    The first SIGTERM or Ctrl-C lets running tasks finish, the second gives them back.
    """
    app = load_app(ctx, target)
    options = WorkerOptions(
        target=target_of(ctx, target) or "",
        concurrency=concurrency,
        threads=threads,
        queues=tuple(filter(None, (queue.strip() for queue in queues.split(",")))),
        name=name,
        loglevel=loglevel,
        burst=burst,
        reload=reload,
        max_tasks_per_child=max_tasks_per_child,
        grace=grace,
    )
    sys.exit(run(app, options))
