"""`manage.py upshot_worker`: run the project's tasks until told to stop."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any, Final, final

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from upshot.errors import ConfigError
from upshot.worker import STOPS, WorkerOptions, run
from upshot_contrib.django.serving import chosen_app
from upshot_contrib.django.settings import NAME

__all__ = ["Command"]

_FORMATS: Final = ("text", "json")
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_APP: Final = "upshot_contrib.django.app"


@final
class Command(BaseCommand):
    """As `upshot worker`, for the app of `settings.UPSHOT`, or for one of `settings.TASKS`."""

    help = (
        "Run tasks until told to stop. SIGTERM, SIGHUP or Ctrl-C finishes the running tasks; a "
        "second one, SIGQUIT, or the end of the grace gives them back to their queues."
    )
    requires_migrations_checks = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-c", "--concurrency", type=_count, help="processes")
        parser.add_argument("--threads", type=_count, help="tasks at once in each process")
        parser.add_argument("-Q", "--queues", default="", help="names, separated by commas")
        parser.add_argument(
            "--serve",
            metavar="NAME",
            help="UPSHOT, or an alias in TASKS that has OPTIONS; only if the project has several",
        )
        parser.add_argument("-l", "--loglevel", type=str.upper, choices=_LEVELS, default="INFO")
        parser.add_argument(
            "--log-format", choices=_FORMATS, help="as set (worker_log_format), if you give none"
        )
        parser.add_argument("-n", "--name", help="what others see")
        parser.add_argument("--burst", action="store_true", help="stop when nothing is due")
        parser.add_argument(
            "--max-tasks-per-child", type=_count, help="replace a process after so many tasks"
        )
        parser.add_argument("--grace", type=float, help="seconds that a stop waits for tasks")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            served = chosen_app(options["serve"])
        except ConfigError as exc:
            raise CommandError(str(exc), returncode=2) from exc
        chosen = WorkerOptions(
            target=_APP if served.name == NAME else f"TASKS[{served.name!r}]",
            concurrency=options["concurrency"],
            threads=options["threads"],
            queues=tuple(name for name in options["queues"].split(",") if name) or served.queues,
            name=options["name"],
            loglevel=options["loglevel"],
            log_format=options["log_format"],
            burst=options["burst"],
            max_tasks_per_child=options["max_tasks_per_child"],
            grace=options["grace"],
        )
        connections.close_all()  # they must not cross the fork
        try:
            code = run(served.app, chosen)
        except ConfigError as exc:
            raise CommandError(str(exc), returncode=2) from exc
        # While the interpreter ends it gives signals their defaults back: one more would end it.
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(code)


def _count(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise ArgumentTypeError(f"it is a number of 1 or more, not {text!r}")
    return found
