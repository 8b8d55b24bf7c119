"""What is asked of every result backend, by doing it to two records with ids of their own."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, final

from upshot import clock, retrying
from upshot.backend import Backend
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import UpshotError
from upshot.finding import Finding, Level
from upshot.listening import Listener
from upshot.record import Payload, Record
from upshot.states import State

__all__ = ["ResultsTrial", "round_trip"]

T = TypeVar("T")

_KEPT: Final = 60.0  # seconds until a record goes that could not be removed
_LIFE: Final = 0.5  # seconds that the record lives which is to expire
_LATE: Final = 2.0  # seconds after its end at which a record is given up that does not expire
_LOOK: Final = 0.02  # seconds between two looks at it
_TRIPS: Final = 20  # round trips of which the median is taken, or as many as there are in
_TRIPS_TIME: Final = 1.0  # second
_HEARD: Final = 2.0  # seconds in which a notification has to come
_SLOW: Final = 0.1  # seconds of a round trip that is felt in every call


@final
class ResultsTrial:
    """Writes, reads, awaits, lets expire and deletes two records that nobody else knows of.

    Args:
        client: of the backend; in the namespace that is used in earnest, as rights may end there.
        trial: begins the two ids.
        timeout: seconds that one operation may take, its retries included.
    """

    def __init__(self, client: ResultClient, trial: str, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._ids = (f"{trial}-kept", f"{trial}-expiring")
        self._reply_to = client.backend.reply_to

    def steps(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Yield what is tried, as what could not be done if it fails; each needs the one before."""
        yield "it cannot be asked for a record", self._connect
        yield "a record cannot be written", self._write
        yield "round trips cannot be measured", self._measure
        if self._client.capabilities.push:
            yield "notifications cannot be had", self._hear
        else:
            yield "the end of a task cannot be stored", self._end
        if self._client.capabilities.expiry_resolution is not None:
            yield "a record cannot be made to expire", self._expire
        yield "a record cannot be deleted", self._delete

    def tidy(self) -> None:
        """Remove what may still be there; raises nothing. What cannot be removed expires."""
        with contextlib.suppress(UpshotError):
            self._client.forget(self._ids)

    def _connect(self) -> Finding:
        self._client.load(self._ids[0])
        return Finding(Level.OK, "it answers")

    def _write(self) -> Finding:
        record = self._record(0, State.STARTED, attempt=2)
        if not self._store(record):
            return Finding(
                Level.PROBLEM,
                "a new record was not stored: the service says that there is one under its id",
                change="see whether something between here and the service answers for it",
            )
        if self._client.load(record.task_id) != record:
            return Finding(
                Level.PROBLEM,
                "a record that was just written cannot be read",
                change="read where is written: a replica may lag behind",
            )
        if self._store(self._record(0, State.QUEUED)):
            return Finding(
                Level.PROBLEM,
                "an older record has replaced a newer one",
                "states of tasks would go back, and results change",
            )
        return Finding(Level.OK, "records can be written and read, and keep their order")

    def _measure(self) -> Finding:
        if not self._reply_to:
            return round_trip(lambda: self._client.load(self._ids[0]), "a read")
        info = Payload("json", b"1")
        record = self._record(0, State.STARTED, attempt=2)._replace(info=info)
        return round_trip(lambda: self._store(record), "a result to this process")

    def _hear(self) -> Finding:
        listener = self._call(lambda backend, seconds: backend.listen(seconds))
        if listener is None:
            self._end()
            return Finding(
                Level.NOTE,
                "it wakes nobody here, although this kind of service can",
                f"whoever waits looks at most {self._client.capabilities.poll_interval * 1000:g} "
                "ms apart",
                capability="push",
            )
        with contextlib.closing(listener):
            record = self._record(0, State.SUCCESS, attempt=2)
            key = self._client.encode(record, expires=None).key
            self._call(lambda _, __: listener.subscribe([key]))
            began = clock.monotonic()
            self._end()
            heard = self._heard(listener, key)
            taken = clock.monotonic() - began
        if not heard:
            return Finding(
                Level.PROBLEM,
                f"no notification came within {_HEARD:g} seconds",
                "whoever waits looks once a second only",
                "see whether a proxy between here and the service passes on subscriptions",
            )
        return Finding(Level.OK, f"whoever waits is woken {taken * 1000:.3g} ms after the end")

    def _heard(self, listener: Listener, key: str) -> bool:
        deadline = Deadline(_HEARD)
        while not deadline.expired:
            hints = self._call(lambda _, __: listener.wait(deadline.left() or 0.0))
            if any(hint.key in (key, None) for hint in hints):
                return True
        return False

    def _end(self) -> Finding:
        if not self._store(self._record(0, State.SUCCESS, attempt=2)):
            return Finding(
                Level.PROBLEM, "the end of a task was not stored, though nothing forbids"
            )
        return Finding(Level.OK, "the end of a task can be stored")

    def _expire(self) -> Finding:
        record = self._record(1, State.SUCCESS)
        began = clock.monotonic()
        self._store(record, expires=_LIFE)
        stored = clock.monotonic()
        resolution = self._client.capabilities.expiry_resolution or 0.0
        end = Deadline(_LIFE + resolution + _LATE)
        while self._client.load(record.task_id) is not None:
            if end.expired:
                return Finding(
                    Level.PROBLEM,
                    f"a record that was to expire after {_LIFE:g} seconds is there "
                    f"{_LATE:g} seconds later",
                    "results would stay for ever, or for too long",
                    "let NTP keep the clocks of this machine and of the service",
                )
            clock.sleep(_LOOK)
        lived = clock.monotonic() - began
        if lived < _LIFE - resolution - _LOOK:
            return Finding(
                Level.PROBLEM,
                f"a record that was to expire after {_LIFE:g} seconds was gone after {lived:.3g}",
                "results would be lost before they are read",
                "let NTP keep the clocks of this machine and of the service",
            )
        off = clock.monotonic() - stored - _LIFE
        return Finding(
            Level.OK, f"records expire: {max(0.0, off) * 1000:.3g} ms after the moment at most"
        )

    def _delete(self) -> Finding:
        self._client.forget(self._ids)
        if any(found is not None for found in self._client.load_many(self._ids)):
            return Finding(Level.PROBLEM, "a record that was deleted can still be read")
        return Finding(Level.OK, "records can be deleted")

    def _record(self, number: int, state: State, *, attempt: int = 1) -> Record:
        outcome = Payload("json", b"null") if state == State.SUCCESS else None
        return Record(self._ids[number], state, attempt, name="upshot doctor", outcome=outcome)

    def _store(self, record: Record, *, expires: float = _KEPT) -> bool:
        can_expire = self._client.capabilities.expiry_resolution is not None
        return self._client.store(
            record, expires=expires if can_expire else None, reply_to=self._reply_to
        )

    def _call(self, operation: Callable[[Backend, float], T]) -> T:
        """Run what users have no word for, as the client runs the rest."""
        backend, client = self._client.backend, self._client
        return retrying.call(
            lambda seconds: operation(backend, seconds),
            errors=backend.driver_errors,
            url=client.url,
            deadline=None,
            limit=self._timeout,
        )


def round_trip(ask: Callable[[], object], what: str) -> Finding:
    """Measure how long a question takes, its answer included.

    Args:
        ask: asks once.
        what: what that is: "a read".
    """
    end = Deadline(_TRIPS_TIME)
    times: list[float] = []
    while len(times) < _TRIPS and not (times and end.expired):
        began = clock.monotonic()
        ask()
        times.append(clock.monotonic() - began)
    median = statistics.median(times)
    said = (
        f"{what} takes {median * 1000:.3g} ms (the median of {len(times)}; the longest took "
        f"{max(times) * 1000:.3g} ms)"
    )
    if median < _SLOW:
        return Finding(Level.OK, said)
    return Finding(
        Level.WARNING,
        said,
        "every call and every step of a task waits for as long",
        "let callers and workers run nearer to the service",
    )
