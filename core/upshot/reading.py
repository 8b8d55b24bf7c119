"""Records in batches: reading them, all or those of a service whose parts are not all there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar, final

from upshot import retrying
from upshot.backend import Backend, StoredRecord
from upshot.clock import Deadline
from upshot.envelope import Envelopes
from upshot.errors import ServiceError, ServiceUnavailableError, UpshotError
from upshot.keys import Keyspace
from upshot.record import Record
from upshot.retrying import DriverErrors
from upshot.service import OpenService
from upshot.states import TERMINAL

__all__ = ["BATCH", "Reader", "Seen", "batches", "is_short"]

BATCH: Final = 1000
"""Records per round trip in batch calls: large enough to hide the round trip, small enough that
one call neither blocks a server nor fills a buffer (drivers were measured at this size)."""

_FIRST_SPAN: Final = 16  # items that are deleted together, the first of a stream; then more
_FIRST_LOOK: Final = 8  # records that an enumeration reads first, of unknown length; then more
_MOST_BYTES: Final = 32 * 2**20  # that it reads together: more than 1000 records of usual length

T = TypeVar("T")

Seen = tuple[Record | UpshotError | None, UpshotError | None]
"""What a look has found that ends a wait, None for nothing; and why nothing could be read."""


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut items into parts of at most `BATCH`."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def is_short(deadline: Deadline) -> bool:
    """Tell whether a wait may be over before the hub's thread has come to look."""
    left = deadline.left()
    return left is not None and left < retrying.MIN_LOOK


@final
class Reader:
    """Reads the records of one client.

    Args:
        service: the open backend.
        envelopes: what makes records of its bytes.
        errors: how to read the driver's exceptions.
    """

    def __init__(
        self, service: OpenService[Backend], envelopes: Envelopes, errors: DriverErrors
    ) -> None:
        self._service = service
        self._envelopes = envelopes
        self._errors = errors

    def record(self, key: str, deadline: Deadline | None = None) -> Record | UpshotError | None:
        """Return the record of one key, the error that takes its place, or None.

        Raises:
            ServiceError: it could not be read in time.
        """
        body = self._service.call(partial(_load_one, key), deadline=deadline)
        return None if body is None else self._envelopes.open(key, body)

    def bodies(self, keys: Sequence[str], deadline: Deadline | None = None) -> list[bytes | None]:
        """Return what is stored under each key.

        Raises:
            ServiceError: not all of it could be read in time.
        """
        found: list[bytes | None] = []
        for batch in batches(keys):
            found += self._service.call(partial(_load_all, batch), deadline=deadline)
        return found

    def records(
        self, keys: Sequence[str], deadline: Deadline | None = None
    ) -> list[Record | UpshotError | None]:
        """Return for each key its record, or the error that takes its place.

        Raises:
            ServiceError: as for `bodies`.
        """
        return [
            None if body is None else self._envelopes.open(key, body)
            for key, body in zip(keys, self.bodies(keys, deadline), strict=True)
        ]

    def reachable(
        self, keys: Sequence[str], deadline: Deadline | None = None
    ) -> list[Record | UpshotError | None]:
        """Return what `records` does, with ServiceUnavailableError for what cannot be read now.

        Raises:
            ServiceError: nothing of a batch could be read in time.
        """
        found: list[Record | UpshotError | None] = []
        for batch in batches(keys):
            bodies = self._service.call(partial(_load_some, batch), deadline=deadline)
            opened = self._envelopes.open
            found += [
                opened(key, body) if type(body) is bytes else self._read(key, body)
                for key, body in zip(batch, bodies, strict=True)
            ]
        return found

    def end_of(self, key: str, deadline: Deadline) -> Seen:
        """Look once, as `ended` does, for one key: most waits are for one."""
        try:
            found = self.record(key, deadline)
        except ServiceUnavailableError as exc:  # ends no wait: the hub tries on
            return None, exc
        return (found if _is_end(found) else None), None

    def glance(self, key: str, deadline: Deadline) -> Seen:
        """Look once, as `end_of` does, for a wait that goes on whatever a service refuses."""
        try:
            return self.end_of(key, deadline)
        except ServiceError as exc:
            return None, exc

    def ended(
        self, keys: Sequence[str], deadline: Deadline
    ) -> tuple[dict[str, Record | UpshotError], UpshotError | None]:
        """Look once; return what needs no waiting, and why something could not be read.

        Past the deadline no further batch is begun, nor after `MIN_LOOK` if that is later.
        """
        ended: dict[str, Record | UpshotError] = {}
        trouble: UpshotError | None = None
        left = deadline.left()
        end = Deadline(None if left is None else max(left, retrying.MIN_LOOK))
        for batch in batches(keys):
            try:
                seen = self.reachable(batch, deadline)
            except ServiceUnavailableError as exc:  # ends no wait: the hub tries on
                return ended, exc
            for key, found in zip(batch, seen, strict=True):
                if isinstance(found, Record):
                    if found.state in TERMINAL:
                        ended[key] = found
                elif isinstance(found, ServiceUnavailableError):
                    trouble = found
                elif found is not None:
                    ended[key] = found
            if end.expired:
                break
        return ended, trouble

    def delete(self, keys: Sequence[str]) -> None:
        """Remove keys and all that was stored beside them; unknown ones are fine.

        Raises:
            ServiceError: not all of it could be done in time; doing it again is harmless.
        """
        for batch in batches(keys):
            self._service.call(partial(_delete, batch))

    def delete_items(self, keys: Keyspace, task_ids: Sequence[str]) -> None:
        """Remove the items of tasks whose own records are gone.

        A task that did not stream costs a look for its first item. The last ones go first, so that
        whoever is interrupted in between finds them again.

        Raises:
            ServiceError: as for `delete`.
        """
        firsts = [keys.items(task_id, (0,))[0] for task_id in task_ids]
        found = zip(task_ids, self.bodies(firsts), strict=True)
        streams = [task_id for task_id, first in found if first is not None]
        for task_id in streams:
            start, size, spans = 0, _FIRST_SPAN, list[list[str]]()
            while self.bodies(keys.items(task_id, (start,))) != [None]:
                spans.append(keys.items(task_id, range(start, start + size)))
                start, size = start + size, min(4 * size, BATCH)
            for span in reversed(spans):
                self.delete(span)

    def recheck(self, batch: Sequence[StoredRecord], answers: Sequence[bool]) -> list[bool]:
        """Correct answers after a lost one: the record that refused ours may be ours."""
        bodies = self.bodies([record.key for record in batch])
        return [
            answer or body == record.body
            for record, answer, body in zip(batch, answers, bodies, strict=True)
        ]

    def scan(
        self,
        prefixes: Sequence[str],
        unreadable: Callable[[UpshotError], object] | None = None,
    ) -> Iterator[Record]:
        """Yield every readable record whose key has one of the prefixes, in no order.

        Few are held at once if they are long.
        `unreadable` is told of the errors that take the place of others; None stands for nobody.
        """
        seen: set[str] = set()
        for prefix in prefixes:
            keys = self._service.call(partial(_scan, prefix))
            fresh = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(fresh)
            for found in self._enumerated(fresh):
                if isinstance(found, Record):
                    yield found
                elif found is not None and unreadable is not None:
                    unreadable(found)

    def _enumerated(self, keys: Sequence[str]) -> Iterator[Record | UpshotError | None]:
        """Yield what each key has, as many at once as are likely to be `_MOST_BYTES` together.

        No service tells how long a record is before it is read, so those before it say.
        """
        start, size = 0, _FIRST_LOOK
        while batch := keys[start : start + size]:
            bodies, longest = self.bodies(batch), 1
            for key, body in zip(batch, bodies, strict=True):
                if isinstance(body, bytes):
                    longest = max(longest, len(body))
                yield None if body is None else self._envelopes.open(key, body)
            start += len(batch)
            size = max(1, min(2 * size, BATCH, _MOST_BYTES // longest))

    def _read(self, key: str, body: bytes | Exception | None) -> Record | UpshotError | None:
        if isinstance(body, Exception):
            error = retrying.translate(body, self._errors, self._service.url)
            if not isinstance(error, ServiceUnavailableError):
                raise error or body
            return error
        return None if body is None else self._envelopes.open(key, body)


def _scan(prefix: str, backend: Backend, seconds: float) -> list[str]:
    return list(backend.scan(prefix, seconds))


def _is_end(found: Record | UpshotError | None) -> bool:
    """Tell whether nobody needs to wait any longer."""
    return found is not None and (not isinstance(found, Record) or found.is_terminal)


def _delete(keys: Sequence[str], backend: Backend, seconds: float) -> None:
    backend.delete(keys, seconds)


def _load_one(key: str, backend: Backend, seconds: float) -> bytes | None:
    body = backend.load((key,), seconds)[0]
    if isinstance(body, Exception):
        raise body
    return body


def _load_some(
    keys: Sequence[str], backend: Backend, seconds: float
) -> Sequence[bytes | Exception | None]:
    """Load a batch; raise if nothing of it can be read, so that it is tried again."""
    bodies = backend.load(keys, seconds)
    failed = [body for body in bodies if isinstance(body, Exception)]
    if failed and len(failed) == len(bodies):
        raise failed[0]
    return bodies


def _load_all(keys: Sequence[str], backend: Backend, seconds: float) -> list[bytes | None]:
    """Load a batch; raise if anything of it cannot be read, so that it is tried again."""
    bodies: list[bytes | None] = []
    for body in backend.load(keys, seconds):
        if isinstance(body, Exception):
            raise body
        bodies.append(body)
    return bodies
