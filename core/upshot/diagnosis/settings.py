"""Settings that are legal and dangerous, alone or together with the services they go with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from upshot import registry
from upshot.app import App
from upshot.errors import ConfigError
from upshot.finding import Finding, Level
from upshot.settings import Settings
from upshot.url import Url

__all__ = ["settings_findings"]

_SOON: Final = 60.0  # seconds; whoever reads a result later than that is no rarity
_SHORT_LEASE: Final = 5.0  # seconds; a machine that swaps or is suspended stands still for longer
_RENEWALS: Final = 2  # operations that must fit into a lease: it is renewed after a third of it


def settings_findings(app: App) -> Iterator[Finding]:
    """Look at the settings of an app; ask no service.

    Raises:
        ConfigError: a URL among them cannot be used at all.
    """
    settings = app.settings
    found = [
        *_serializers(app),
        *_expiry(settings),
        *_leases(settings),
        *_limits(app),
        *_places(app),
        *_records(settings),
        *_keys(settings),
    ]
    yield from found
    if all(finding.level in (Level.OK, Level.NOTE) for finding in found):
        yield Finding(Level.OK, "no setting is dangerous")


def _serializers(app: App) -> Iterator[Finding]:
    if "pickle" in app.settings.accept_content:
        yield Finding(
            Level.WARNING,
            "accept_content has 'pickle'",
            "whoever can write to the broker or the results runs code of theirs in workers and "
            "callers",
            "take 'pickle' out of accept_content; 'json' and 'msgpack' know most types",
        )
    try:
        _ = app.codecs
    except ConfigError as exc:  # a serializer, a key, or what large results take is not there
        yield Finding(
            Level.PROBLEM, f"values cannot be read or written: {exc}", "no task can be sent or run"
        )


def _expiry(settings: Settings) -> Iterator[Finding]:
    if settings.result_expires is None:
        yield Finding(
            Level.WARNING,
            "result_expires is none: results stay for ever",
            "what nobody forgets fills the service some day",
            "set result_expires to the seconds in which results are read",
        )
    elif settings.result_expires < _SOON:
        yield Finding(
            Level.WARNING,
            f"result_expires is {settings.result_expires:g} seconds",
            "whoever reads a result later than that finds none",
            "set result_expires to the seconds in which results are read",
        )


def _leases(settings: Settings) -> Iterator[Finding]:
    lease, operation = settings.worker_lease, settings.operation_timeout
    if lease < _RENEWALS * operation:
        yield Finding(
            Level.WARNING,
            f"worker_lease is {lease:g} seconds, and operation_timeout {operation:g}",
            "one slow answer of the broker lets leases end, and tasks run twice",
            f"set worker_lease to {_RENEWALS * operation:g} seconds or more",
        )
    elif lease < _SHORT_LEASE:
        yield Finding(
            Level.WARNING,
            f"worker_lease is {lease:g} seconds",
            "a worker that stands still for as long loses its tasks to others: they run twice",
            "set worker_lease to 30, its default",
        )


def _limits(app: App) -> Iterator[Finding]:
    longest = registry.broker_class(app.broker_url).capabilities.longest_lease
    if longest is not None:
        limits = {name: spec.time_limit for name, spec in sorted(app.tasks.items())}
        over = [name for name, limit in limits.items() if limit is not None and limit > longest]
        if over:
            yield Finding(
                Level.WARNING,
                f"{', '.join(over)} may run for longer than {longest:g} seconds, for which this "
                "broker leaves a message with a worker",
                "it delivers the message again then, and the task runs twice",
                "raise the server's limit (RabbitMQ: consumer_timeout), or lower time_limit",
            )
        elif None in limits.values():
            yield Finding(
                Level.NOTE,
                f"this broker takes a message back after {longest:g} seconds, and some tasks have "
                "no time_limit",
                "one that runs longer is delivered again, unless the server is configured for it",
            )
    grace = app.settings.worker_shutdown_timeout
    slow = [name for name, spec in sorted(app.tasks.items()) if (spec.time_limit or 0.0) > grace]
    if slow:
        yield Finding(
            Level.NOTE,
            f"{', '.join(slow)} may run for longer than the {grace:g} seconds that a worker waits "
            "when it is stopped",
            "such a run is given back then, and begins anew elsewhere",
            "raise worker_shutdown_timeout, if the supervisor of your services grants as much",
        )


def _places(app: App) -> Iterator[Finding]:
    broker, results = app.broker_url, app.backend_url
    if not registry.broker_class(broker).capabilities.shared:
        yield Finding(
            Level.WARNING,
            f"{broker} keeps messages in this process",
            "only app.running() runs tasks; no worker gets any",
            "name a broker, such as sqlite:///tasks.db or redis://HOST",
        )
    else:
        backend = registry.backend_class(results)
        if not backend.capabilities.shared and not backend.over_broker:
            yield Finding(
                Level.PROBLEM,
                f"{results} keeps results in the process that stores them",
                "workers store them where no caller can read them",
                "name a result backend, or leave it out: then results go where the messages are",
            )
    for url in dict.fromkeys((broker, results)):
        if _is_relative(url):
            yield Finding(
                Level.NOTE,
                f"{url} is a file below the current folder",
                "a worker or caller that is started in another folder has another file, and they "
                "do not meet",
                "write the whole path: sqlite:////srv/app/tasks.db",
            )


def _is_relative(url: Url) -> bool:
    return url.scheme.endswith("sqlite") and not url.path.startswith("//")


def _records(settings: Settings) -> Iterator[Finding]:
    if settings.task_ignore_result:
        yield Finding(
            Level.NOTE, "task_ignore_result is on: no task has a result, unless it says so itself"
        )
    elif not settings.task_track_queued:
        yield Finding(
            Level.NOTE,
            "task_track_queued is off: a task that waits looks like one that was never sent",
        )


def _keys(settings: Settings) -> Iterator[Finding]:
    if not (settings.signing_keys or settings.encryption_keys):
        return
    if settings.accept_unsealed:
        yield Finding(
            Level.WARNING,
            "accept_unsealed is on: what is neither signed nor encrypted is accepted",
            "whoever can write to the broker or the results needs no key",
            "set accept_unsealed to false when all processes have the keys, and what was kept "
            "before has expired",
        )
    if not settings.signing_keys:
        yield Finding(
            Level.NOTE,
            "payloads are encrypted, and nothing is signed",
            "states, times and names of tasks can be changed without a key",
            "set signing_keys, too",
        )
