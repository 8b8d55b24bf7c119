"""What the adapters of all of Celery's result backends have in common.

A record of upshot becomes what a worker of Celery stores: its key is the task id, its state is
Celery's state, and its encoded body, which says nothing to Celery, is the task's result, as bytes
that Celery's JSON writes. In the states whose results Celery takes for exceptions (FAILURE, RETRY,
REVOKED) the body is the one argument of an `Exception`.

Nothing is added and nothing is left out: no lock, no comparison, no retry, no clean-up. Where
Celery gives no answer (it does not say whether a write was applied), the adapter reads what is
stored afterwards. Where upshot asks for what Celery has no call for, nothing is done.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from upshot.backend import Backend, StoredRecord
from upshot.retrying import DriverErrors
from upshot.states import State
from upshot.url import Url
from upshot_over_celery.driver import (
    EXCEPTION_STATES,
    BackendError,
    Celery,
    KombuError,
    OperationalError,
)

__all__ = ["PATIENCE", "CeleryBackend", "body_of", "outcome_of", "reading"]

PATIENCE: Final = 5.0
"""Seconds that a server may take for an answer, wherever Celery or its driver has a setting for it:
the default timeout of upshot's client."""

_LONG: Final = 3600
"""Seconds of a time to live that one more or less is nothing to."""


class CeleryBackend(Backend):
    """One Celery app, made for one client of upshot.

    A subclass says what its URL means to Celery, and declares what Celery's documentation says, or
    what the service allows.
    """

    contract: ClassVar[str] = "1.0"
    settings: ClassVar[dict[str, Any]] = {}
    """Of Celery, beside the URL: the documented ones for who does not want to wait long."""
    behind: ClassVar[int] = 0
    """Seconds by which the service's clock may make a record go before its time: a short time is
    made that much longer."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._app: Any = self._make_app(**self._urls())

    @abc.abstractmethod
    def _urls(self) -> dict[str, str]:
        """Return Celery's `backend`, and `broker` where that matters."""

    @property
    def _backend(self) -> Any:
        """Celery's backend: one for each thread, as it is Celery's way."""
        return self._app.backend

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return [self._store(record) for record in records]

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return [self._load(key) for key in keys]

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        for key in keys:
            self._app.AsyncResult(key).forget()

    def close(self) -> None:
        """Close the app, which is all that Celery has for this, and let go of it."""
        self._app.close()
        del self._app

    def _make_app(self, **urls: str) -> Any:
        app = Celery("upshot-over-celery", set_as_current=False, fixups=[], **urls)
        app.conf.update(self.settings)
        return app

    def _store(self, record: StoredRecord) -> bool:
        """Store one record; whether it was applied is told by what is there afterwards."""
        if self.capabilities.expiry_resolution is not None:
            self._set_expiry(record.expires)
        self._backend.store_result(record.key, outcome_of(record), record.state)
        return self._load(record.key) == record.body

    def _set_expiry(self, seconds: float | None) -> None:
        """Set anew what is one setting of a Celery application, `result_expires`; 0 is never."""
        whole = 0 if seconds is None else math.ceil(seconds)
        if 0 < whole < _LONG:
            whole += self.behind
        self._backend.expires = self._backend.failure_expires = whole

    def _load(self, key: str) -> bytes | None:
        return body_of(self._backend.get_task_meta(key, cache=False))


def outcome_of(record: StoredRecord) -> bytes | Exception:
    """Return what Celery is to store as the result of a task in the record's state."""
    return Exception(record.body) if record.state in EXCEPTION_STATES else record.body


def body_of(meta: dict[str, Any]) -> bytes | None:
    """Return the body in what Celery says about a task; None if it knows nothing.

    Raises:
        TypeError: the result is not of the kind that was stored.
    """
    if meta["status"] == State.PENDING:
        return None
    result = meta["result"]
    body = result.args[0] if isinstance(result, Exception) else result
    if not isinstance(body, bytes):
        raise TypeError(f"Celery returned {type(body).__name__} where bytes were stored")
    return body


def reading(
    *, transient: Sequence[type[Exception]], permanent: Sequence[type[Exception]]
) -> DriverErrors:
    """Return how the errors of a driver are read, with those of Celery and of sockets."""
    return DriverErrors(
        transient=(OSError, OperationalError, *transient),
        permanent=(BackendError, KombuError, *permanent),
    )
