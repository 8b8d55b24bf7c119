"""How one worker was started."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WorkerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What the command line says; None leaves a choice to the app's settings.

    Attributes:
        target: the app as it was named, for the banner.
        concurrency: processes.
        threads: tasks at once in each process.
        queues: empty for all that the app's tasks name.
        name: what others see; None is host and process id.
        loglevel: a level's name, such as `"INFO"`.
        log_format: `"text"` or `"json"`.
        burst: stop when nothing is due.
        reload: start again when a module's file changes.
        max_tasks_per_child: tasks after which a process is replaced.
        grace: seconds that a stop waits for running tasks.
    """

    target: str
    concurrency: int | None = None
    threads: int | None = None
    queues: tuple[str, ...] = ()
    name: str | None = None
    loglevel: str = "INFO"
    log_format: str | None = None
    burst: bool = False
    reload: bool = False
    max_tasks_per_child: int | None = None
    grace: float | None = None
