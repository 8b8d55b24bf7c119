"""What a worker prints when it starts: enough to see at a glance that it is the right one."""

from __future__ import annotations

from importlib.metadata import version

from upshot.app import App
from upshot.masking import mask
from upshot.record import printable
from upshot.worker.options import WorkerOptions

__all__ = ["banner"]


def banner(app: App, options: WorkerOptions, *, processes: int, threads: int) -> str:
    """Return the banner; URLs are masked, names are printable."""
    queues = options.queues or tuple(app.queues())
    tasks = sorted(app.tasks) or ["(none: is the right module named?)"]
    rows = [
        ("app", options.target),
        ("broker", str(app.broker_url)),
        ("backend", str(app.backend_url)),
        ("queues", ", ".join(queues)),
        ("concurrency", f"{processes} processes of {threads} thread{'s' if threads > 1 else ''}"),
    ]
    lines = [f"upshot {version('upshot')} worker"]
    lines += [f"  {label:<12} {mask(printable(text))}" for label, text in rows]
    lines += ["  tasks", *(f"    {printable(name)}" for name in tasks)]
    return "\n".join(lines)
