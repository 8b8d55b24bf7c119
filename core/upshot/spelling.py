"""Which known names a misspelt one may have been meant for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

__all__ = ["CELERY", "hint", "is_misspelt", "near"]

CELERY: Final = {
    "backend": "here it is called 'result_backend'",
    "broker": "here it is called 'broker_url'",
    "broker_connection_timeout": "here it is called 'operation_timeout'",
    "broker_read_url": "there is one 'broker_url'",
    "broker_transport_options": "write them into 'broker_url' as ?parameters",
    "broker_write_url": "there is one 'broker_url'",
    "enable_utc": "times are always UTC",
    "result_accept_content": "here it is called 'accept_content'",
    "result_backend_transport_options": "write them into 'result_backend' as ?parameters",
    "task_acks_late": "messages are always acknowledged after their result is stored",
    "task_default_retry_delay": "here it is called 'task_retry_backoff'",
    "task_publish_retry": "publishing is always retried, within 'operation_timeout'",
    "task_reject_on_worker_lost": "here 'task_max_deliveries' says how often a task is tried",
    "task_send_sent_event": "here 'task_track_queued' records that a task was sent",
    "task_track_started": "STARTED is always recorded; 'task_track_queued' is about QUEUED",
    "timezone": "times are always UTC",
    "visibility_timeout": "here it is called 'worker_lease'",
    "worker_soft_shutdown_timeout": "here it is called 'worker_shutdown_timeout'",
}
"""Names of settings that users of Celery know, and what to write here."""


def near(name: str, known: Iterable[str], *, most: int = 3, likeness: float = 0.6) -> list[str]:
    """Return the known names that are nearest to `name`, the nearest first.

    Args:
        name: what was written.
        known: what could have been meant.
        most: how many to return at most.
        likeness: from 0, anything, to 1, the same: `difflib`'s ratio.
    """
    from difflib import get_close_matches  # only where there is an error, so seldom

    return get_close_matches(name, list(known), n=most, cutoff=likeness)


def hint(name: str, settings: Collection[str]) -> str:
    """Return what to write in place of a name that no setting has.

    A name of Celery's gets what it is called or done with here, any other the nearest setting.
    """
    plain = name.lower().removeprefix("celery_").removeprefix("upshot_")
    if plain in CELERY:
        return CELERY[plain]
    found = [plain] if plain in settings else near(plain, settings, most=1)
    return f"did you mean {found[0]!r}?" if found else "`upshot config` lists them all"


def is_misspelt(name: str, settings: Collection[str]) -> bool:
    """Tell whether a variable of a user's module was meant to be a setting, and is none.

    True for Celery's names and for those that differ from a setting's by a few letters: a likeness
    of 0.85 tells `result_expire` from a module's own `results`.
    """
    if name in settings:
        return False
    return name in CELERY or bool(near(name, settings, likeness=0.85))
