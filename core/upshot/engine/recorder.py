"""Brings the records of one task to its result store, with the patience that each deserves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

from upshot import clock
from upshot.backend import Announcing, StoredRecord
from upshot.client import ResultClient
from upshot.engine.patience import Patience
from upshot.envelope import lasting, unfinished
from upshot.errors import (
    CorruptRecordError,
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
)
from upshot.reading import BATCH
from upshot.record import Payload, Record

__all__ = ["Recorder"]

logger = logging.getLogger("upshot.task")

T = TypeVar("T")

_UNHEARD: Final = 30.0  # seconds for which a task's reports are not sent after one that failed


@final
class Recorder:
    """The way of one task's records to its store.

    Args:
        client: the store.
        task_id: whose records.
        label: the task, as logs are to show it.
        reply_to: where records are sent, for a backend that carries them; otherwise "".
        expires: seconds to keep the outcome; None for ever.
        time_limit: seconds that the task runs for at most; None if nothing says so.
        patience: seconds for which a task that has not been run waits for the store.
        stopping: set when nothing more is to be begun; ends that wait too.
        cold: set when the process is about to end, which ends every wait.
    """

    def __init__(
        self,
        client: ResultClient,
        *,
        task_id: str,
        label: str,
        reply_to: str,
        expires: float | None,
        time_limit: float | None = None,
        patience: float,
        stopping: threading.Event,
        cold: threading.Event,
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._label = label
        self._reply_to = reply_to
        self._expires = expires
        self._lasting = lasting(expires, time_limit)
        self._cold = cold
        self._stopping = stopping
        self._limit = patience
        self._patience = Patience(label)
        self._unheard_until = 0.0

    def begin(self, record: Record) -> bool:
        """Store STARTED; False if somebody else's record stands in the way.

        Raises:
            ServiceError: the store refused it for `patience` seconds, or the worker stops.
        """
        store = self._stored(record, put=self._announce)
        return self._before_a_run(store, "it cannot begin")

    def refuse(self, record: Record) -> bool:
        """Store the end of a task that is not run; False if it had ended already.

        Raises:
            ServiceError: as in `begin`.
        """
        return self._before_a_run(self._stored(record), "its end is not stored yet")

    def recall(self) -> Record | None:
        """Return what is on record of a task that is not run; None also if it cannot be read.

        Raises:
            ServiceError: as in `begin`.
        """
        return self._before_a_run(self._known, "it cannot be ended")

    def sealed(self, record: Record) -> StoredRecord:
        """Return the outcome of a run as it is stored, for a broker that stores it.

        Raises:
            PayloadTooLargeError: the store never takes a record of that size.
        """
        return self._encoded(record)

    def has_stored(self, record: Record) -> bool:
        """Tell whether what is on record is this outcome, as far as can be known."""
        return _is_same(self._known(), record)

    def end(self, record: Record, *, in_doubt: bool = False) -> bool:
        """Store the outcome of a run, as long as it takes; False if the task had ended already.

        Whatever goes wrong: what a task has returned cannot be had again.

        Args:
            record: the outcome.
            in_doubt: it may have been stored already.

        Raises:
            PayloadTooLargeError: the store never takes a record of that size.
            ServiceError: the process is ending and the store still refuses.
        """
        store = self._stored(record, in_doubt=in_doubt)

        def attempt() -> bool:
            try:
                return store()
            except (ServiceError, PayloadTooLargeError):
                raise
            except Exception as exc:  # no thread, no memory, or what a driver does not declare
                raise ServiceUnavailableError(f"storing failed: {exc!r}") from exc

        return self._patience.repeat(attempt, "its outcome is not stored yet", stopping=self._cold)

    def sealed_report(self, record: Record) -> StoredRecord:
        """Return a progress report as it is stored.

        Raises:
            PayloadTooLargeError: the store never takes a report of that size.
        """
        return self._encoded(record)

    def report(self, report: StoredRecord) -> None:
        """Store a progress report, unless the store is away: a task must not fail for it."""
        self._heard(lambda: self._client.store_encoded([report]), "progress is not stored")

    def look(self) -> Record | None:
        """Return what is on record; None also while the store is away."""
        return self._heard(self._known, "revocation is not seen")

    # -- items of a stream --------------------------------------------------------------------

    def sealed_item(self, index: int, payload: Payload, name: str) -> StoredRecord:
        """Return an item as it is stored.

        Raises:
            PayloadTooLargeError: the store never takes an item of that size.
        """
        client = self._client
        return client.envelopes.seal_item(
            self._task_id, index, payload, client.capabilities, name=name, expires=self._lasting
        )

    def store_items(self, items: Sequence[StoredRecord]) -> None:
        """Store items once; those that an earlier attempt has stored stay as they are.

        Raises:
            ServiceError: some may not be stored.
        """
        self._client.store_encoded(items)

    def delete_items(self, count: int) -> None:
        """Delete the first `count` items of a stream, and those after them, if there are any.

        Raises:
            ServiceError: some may still be there.
        """
        reader, keys = self._client.reader, self._client.keys
        reader.delete(keys.items(self._task_id, range(count, self.items_there(count))))
        reader.delete(keys.items(self._task_id, range(count)))

    def delete_files(self) -> None:
        """Delete what was put elsewhere of a stream that was forgotten: nothing more may come.

        Raises:
            ServiceError: some may still be there.
        """
        self._client.envelopes.forget([self._task_id])

    def items_there(self, count: int) -> int:
        """Return how many items are stored, when `count` are: an earlier attempt may have more.

        Raises:
            ServiceError: it cannot be known.
        """
        client = self._client
        while True:
            keys = client.keys.items(self._task_id, range(count, count + BATCH))
            found = client.reader.bodies(keys)
            more = found.index(None) if None in found else len(found)
            count += more
            if more < len(found):
                return count

    def standing(self) -> Record | None:
        """Return what is on record of the task; None if nothing is.

        Raises:
            ServiceError: it cannot be read, now or ever.
        """
        return self._client.load(self._task_id)

    def patiently(self, operation: Callable[[], T], what: str) -> T:
        """Repeat what a task that runs needs of the store, as long as it takes.

        Raises:
            ServiceError: the process is ending and the store still refuses.
        """
        return self._patience.repeat(operation, what, stopping=self._cold)

    # -- below the surface --------------------------------------------------------------------

    def _before_a_run(self, operation: Callable[[], T], what: str) -> T:
        """Repeat what can as well be done by another worker, which may reach the store."""
        return self._patience.repeat(operation, what, stopping=self._stopping, limit=self._limit)

    def _heard(self, operation: Callable[[], T], what: str) -> T | None:
        """Do what a running task asks of the store; None while that is away.

        The task must not fail for it, nor wait for it each time it has something to say.
        """
        if clock.monotonic() < self._unheard_until:
            return None
        try:
            return operation()
        except ServiceError as exc:
            self._unheard_until = clock.monotonic() + _UNHEARD
            logger.warning("task %s: %s: %s", self._label, what, exc)
            return None

    def _stored(
        self,
        record: Record,
        *,
        in_doubt: bool = False,
        put: Callable[[StoredRecord], bool] | None = None,
    ) -> Callable[[], bool]:
        """Return what stores `record` and tells whether it applied, however often it is called."""
        put = put or self._put
        encoded: StoredRecord | None = None

        def attempt() -> bool:
            nonlocal in_doubt, encoded
            if encoded is None:  # once: what is put elsewhere would be so each time
                encoded = self._encoded(record)
            # What refuses our record may be our record, if the answer to it was lost on the way.
            was_in_doubt, in_doubt = in_doubt, True
            return put(encoded) or (was_in_doubt and _is_same(self._known(), record))

        return attempt

    def _known(self) -> Record | None:
        try:
            return self._client.load(self._task_id)
        except (CorruptRecordError, PayloadTooLargeError) as exc:
            logger.warning("task %s: %s", self._label, exc)
            return None

    def _encoded(self, record: Record) -> StoredRecord:
        expires = self._expires if record.is_terminal else unfinished(self._expires)
        return self._client.encode(record, expires=expires, reply_to=self._reply_to)

    def _put(self, record: StoredRecord) -> bool:
        """Store a record once, or send it where it is awaited; tell whether it applied."""
        return self._client.store_encoded([record])[0]

    def _announce(self, record: StoredRecord) -> bool:
        """Do the same for a record that is soon out of date, without waiting where that can be."""
        backend = self._client.backend
        if not (self._reply_to and isinstance(backend, Announcing)):
            return self._put(record)
        return backend.announce(record)


def _is_same(known: Record | None, record: Record) -> bool:
    """Tell whether what is on record came from this attempt and says the same."""
    return known is not None and (known.token, known.state) == (record.token, record.state)
