"""A whole app: its tasks and settings, its services, and who serves its queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from upshot import registry
from upshot.app import App
from upshot.broker import QueueStatus
from upshot.diagnosis.examination import Examination
from upshot.diagnosis.reasons import explain
from upshot.diagnosis.service import BROKER, RESULTS, UNUSED, examine
from upshot.diagnosis.settings import settings_findings
from upshot.errors import ServiceError
from upshot.finding import Finding, Level
from upshot.url import Url

__all__ = ["examine_app"]

_NAMED: Final = 5  # workers that are called by name; more are counted


def examine_app(
    app: App, target: str, *, namespace: str | None = None, timeout: float | None = None
) -> Iterator[Examination]:
    """Examine an app, then its services, then its queues; each is yielded when it is done.

    Args:
        app: imported, and open or not.
        target: how the command line names it.
        namespace, timeout: as for `examine`, in the place of those that are set; None for these.

    Raises:
        ConfigError: a URL among its settings cannot be used at all.
    """
    yield Examination(subject=f"app {target}", findings=tuple(_app_findings(app)))
    settings = app.settings
    can_be_asked = registry.broker_class(app.broker_url).capabilities.shared
    for url, roles in _services(app):
        found = examine(
            url,
            roles=roles,
            namespace=namespace or settings.namespace,
            timeout=timeout or settings.operation_timeout,
        )
        yield found
        # Where nobody has been yet, to look would make a file or tables.
        if BROKER in roles and (UNUSED in found.findings or found.worst == Level.PROBLEM):
            can_be_asked = False
    if can_be_asked:
        yield Examination(subject="queues and workers", findings=tuple(_queues(app, target)))


def _services(app: App) -> list[tuple[Url, tuple[str, ...]]]:
    broker, results = app.broker_url, app.backend_url
    if broker == results:
        return [(broker, (RESULTS, BROKER))]
    return [(broker, (BROKER,)), (results, (RESULTS,))]


def _app_findings(app: App) -> Iterator[Finding]:
    if app.tasks:
        count = len(app.tasks)
        yield Finding(
            Level.OK,
            f"{count} task{'s' if count > 1 else ''}, for the queue"
            f"{'s' if len(app.queues()) > 1 else ''} {', '.join(app.queues())}",
        )
    else:
        yield Finding(
            Level.WARNING,
            "it has no tasks",
            "a worker of it would run nothing",
            "define them in this module, or import the modules that do",
        )
    yield from settings_findings(app)


# -- queues and workers ----------------------------------------------------------------------------


def _queues(app: App, target: str) -> Iterator[Finding]:
    queues = app.queues()
    try:
        found = app.broker.call(lambda broker, seconds: broker.survey(queues, seconds))
    except ServiceError as exc:
        yield explain("queues cannot be looked at", exc, app.broker_url)
        return
    yield from _workers(found, target)
    for queue, status in found.items():
        yield from _queue(queue, status, target)


def _workers(found: Mapping[str, QueueStatus], target: str) -> Iterator[Finding]:
    if any(status.workers is None for status in found.values()):
        yield Finding(
            Level.NOTE,
            "this broker does not tell which workers there are",
            change="see the workers' own logs; `upshot status` shows what runs where",
        )
        return
    names = sorted({name for status in found.values() for name in status.workers or ()})
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield Finding(
            Level.OK,
            f"{len(names)} worker processes give signs of life: {', '.join(names[:_NAMED])}{more}",
        )
    else:
        yield Finding(
            Level.WARNING,
            "no worker gives a sign of life",
            "what is sent waits",
            f"start one: upshot -A {target} worker",
        )


def _queue(queue: str, status: QueueStatus, target: str) -> Iterator[Finding]:
    waiting = status.ready + status.delayed
    waits = "1 message waits" if waiting == 1 else f"{waiting} messages wait"
    counts = f"{status.ready} ready, {status.delayed} delayed, {_count(status.leased)} at workers"
    if status.workers == () and status.leased:
        yield Finding(
            Level.WARNING,
            f"queue {queue}: {status.leased} messages are at workers that give no sign of life",
            "they come to other workers when their leases end",
            f"start one: upshot -A {target} worker -Q {queue}",
        )
    if status.workers == () and waiting:
        yield Finding(
            Level.WARNING,
            f"queue {queue}: {waits}, and no worker serves it",
            change=f"start one: upshot -A {target} worker -Q {queue}",
        )
    elif status.workers == ():
        yield Finding(
            Level.NOTE,
            f"queue {queue}: empty, and no worker serves it",
            change=f"start one: upshot -A {target} worker -Q {queue}",
        )
    else:
        yield Finding(Level.OK, f"queue {queue}: {counts}")
    if status.dead:
        yield Finding(
            Level.WARNING,
            f"queue {queue}: {status.dead} messages were put away, and will not be run",
            "nobody could read them, or they took their workers down each time",
            "look at them where this broker keeps dead letters; "
            f"`upshot purge -Q {queue}` removes them with all that waits",
        )


def _count(number: int | None) -> str:
    return "an unknown number" if number is None else str(number)
