"""Idempotency keys: which task holds a key, so that a call that is repeated sends nothing new.

A claim is a record of its own beside those of tasks, under the same guard:

    open    STARTED of an attempt: somebody is about to send the task, or was lost before that
    sent    SUCCESS: its message was put into a queue

Of the claims that are made for one key at once, one applies, as of many starts of one attempt. The
others learn its task id. As long as it is open they wait, for no longer than the sending takes that
it announces. Then the one that first claims the next attempt for the same id sends in its place:
whether the message had left or not, one id is run once. A sent claim is final; what becomes of its
task changes nothing about it. It goes when its time is over, or when somebody releases it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, final

from upshot import clock, storing
from upshot.backend import Backend, StoredRecord
from upshot.checks import check_key, check_name
from upshot.clock import Deadline
from upshot.content_types import CLAIM, encryption_of
from upshot.envelope import Envelopes
from upshot.errors import (
    CorruptRecordError,
    InvalidTaskIdError,
    KeyMissingError,
    ServiceUnavailableError,
    UnsupportedError,
)
from upshot.keys import Keyspace
from upshot.reading import Reader
from upshot.record import Payload, Record, check_task_id, printable
from upshot.service import OpenService
from upshot.states import State

__all__ = ["Claim", "Claims"]

_FIRST_PAUSE: Final = 0.001  # seconds: about what it takes to send a message
_LONGEST: Final = 4096  # bytes: a name of 255 characters, key and id of 255 bytes, head and seal


class Claim(NamedTuple):
    """One key, and the task that holds it.

    Attributes:
        name: of the task; each task has keys of its own.
        key: 1 to 255 bytes of text, as an id.
        task_id: what the task is, or will be, sent as.
        expires: seconds from when it is stored until the key is free again; None for never.
        at: when it was claimed, seconds since the epoch.
        attempt: 1 for who claimed a free key; each further one took over.
        is_sent: whether the message is known to be in a queue, or to have been.
        is_ours: whether it is for the one who asked to send it.
    """

    name: str
    key: str
    task_id: str
    expires: float | None
    at: float
    attempt: int = 1
    is_sent: bool = False
    is_ours: bool = False


@final
class Claims:
    """The claims of one namespace.

    Args:
        service: the open backend.
        keys: the namespace's keys.
        reader: reads what the backend holds.
        envelopes: signs and encrypts what it holds, where that is set.
    """

    def __init__(
        self,
        service: OpenService[Backend],
        keys: Keyspace,
        reader: Reader,
        envelopes: Envelopes,
    ) -> None:
        self._service = service
        self._keys = keys
        self._reader = reader
        self._envelopes = envelopes

    def require(self, expires: float | None) -> None:
        """Refuse what this backend cannot do. No I/O.

        Raises:
            UnsupportedError: it keeps nothing that another process, or another call, could find;
                or its guard does not hold; or it cannot let a claim expire, and `expires` is not
                None.
        """
        backend, url = self._service.current, self._service.url
        if backend.reply_to:
            raise UnsupportedError(
                f"{url} sends results to whoever submitted the task and keeps no keys: "
                "choose a backend that stores results, such as redis://"
            )
        for name in ("atomic", "intermediate"):
            if not getattr(backend.capabilities, name):
                raise UnsupportedError(f"{url} cannot keep keys: it does not declare {name!r}")
        if expires is not None and backend.capabilities.expiry_resolution is None:
            raise UnsupportedError(f"{url} cannot let keys expire: set task_key_expires to None")

    def take(self, wanted: Sequence[Claim]) -> Iterator[list[tuple[int, Claim]]]:
        """Claim keys; yield, as it becomes known, by position who holds each.

        One round trip if all were free. What is yielded is `is_ours`, which the caller is to send
        and to mark before it asks for more, since others wait for that as it may wait for them; or
        it is `is_sent`. Of several claims of one key in `wanted` the first one counts.

        Raises:
            UnsupportedError: as `require`, before any I/O.
            CorruptRecordError: what is stored for a key is no claim.
            KeyMissingError: it is encrypted with a key that is not here.
            ServiceUnavailableError: others claim a key again and again, and do not send.
            ServiceError: the service could not do it in time; any of them may have been claimed.
        """
        places: dict[str, list[int]] = {}
        for place, each in enumerate(wanted):
            self.require(each.expires)
            places.setdefault(self._key(each), []).append(place)
        first = {key: wanted[at[0]] for key, at in places.items()}
        asked, seen = dict(first), dict[str, tuple[int, Deadline]]()
        end, pause = Deadline(2 * self._service.timeout), _FIRST_PAUSE
        while True:
            held = self._round(first, asked, seen)
            yield [
                (place, claim if place == places[key][0] else _repeated(claim))
                for key, claim in held.items()
                for place in places[key]
            ]
            if not asked:
                return
            if end.expired:
                some = next(iter(asked.values()))
                raise ServiceUnavailableError(
                    f"key {printable(some.key)!r} of {some.name} was claimed by others, which do "
                    "not say that they have sent the task: repeat the call"
                )
            clock.sleep(pause)
            pause = min(2 * pause, self._service.current.capabilities.poll_interval)

    def _round(
        self,
        wanted: dict[str, Claim],
        asked: dict[str, Claim],
        seen: dict[str, tuple[int, Deadline]],
    ) -> dict[str, Claim]:
        """Claim once what is `asked`; take out of it, and return, what is ours or sent."""
        held: dict[str, Claim] = {}
        offered = [self.sealed(claim) for claim in asked.values()]
        applied = storing.store(self._service, self._reader, offered)
        for (key, claim), ours in zip(list(asked.items()), applied, strict=True):
            if ours:
                held[key] = claim._replace(is_ours=True)
                del asked[key]
        for key, other in self._found({key: wanted[key] for key in asked}).items():
            asked[key] = wanted[key]  # also if the other one has expired or was released
            if other is not None and other.is_sent:
                held[key] = other
                del asked[key]
            elif other is not None and self._is_overdue(other, key, seen):
                asked[key] = other._replace(attempt=other.attempt + 1, at=clock.now())
        return held

    def _is_overdue(self, claim: Claim, key: str, seen: dict[str, tuple[int, Deadline]]) -> bool:
        """Tell whether an open claim is older than sending takes, by its own clock or by ours."""
        patience = self._service.timeout
        attempt, watched = seen.get(key, (0, None))
        if watched is None or attempt != claim.attempt:
            watched = Deadline(patience)
            seen[key] = claim.attempt, watched
        return watched.expired or clock.now() - claim.at >= patience

    def mark_sent(self, claims: Sequence[Claim]) -> None:
        """Record that the tasks of our claims are sent; who has taken one over does that himself.

        Raises:
            ServiceError: the service could not do it in time.
        """
        marked = [self.sealed(claim._replace(is_sent=True)) for claim in claims]
        storing.store(self._service, self._reader, marked)

    def release(self, name: str, key: str) -> None:
        """Let a key be free again; harmless if it is.

        Raises:
            ConfigError: one of the two is no name or no key.
            UnsupportedError: as `require`, before any I/O.
            ServiceError: the service could not do it in time.
        """
        check_name("a task's name", name)
        check_key(key)
        self.require(None)
        kept = [self._keys.claim(name, key)]
        self._service.call(lambda backend, seconds: backend.delete(kept, seconds))

    def sealed(self, claim: Claim) -> StoredRecord:
        """Return a claim in the form that backends store."""
        record = Record(
            task_id=claim.key,
            state=State.SUCCESS if claim.is_sent else State.STARTED,
            attempt=claim.attempt,
            name=claim.name,
            queued_at=claim.at,
            outcome=Payload(CLAIM, claim.task_id.encode()),
        )
        return StoredRecord(
            key=self._key(claim),
            body=self._envelopes.written(record),
            rank=record.rank,
            barrier=record.barrier,
            expires=claim.expires,
            task_id=record.task_id,
            state=record.state,
            name=record.name,
            reply_to="",
        )

    def _key(self, claim: Claim) -> str:
        return self._keys.claim(claim.name, claim.key)

    def _found(self, wanted: dict[str, Claim]) -> dict[str, Claim | None]:
        """Return the claim that is stored for each key, None for none."""
        bodies = self._reader.bodies(list(wanted)) if wanted else []
        return {
            key: None if body is None else self._opened(claim, body)
            for (key, claim), body in zip(wanted.items(), bodies, strict=True)
        }

    def _opened(self, wanted: Claim, body: object) -> Claim:
        """Return the claim in what is stored for a key; others can write to the service."""
        try:
            if not isinstance(body, bytes) or len(body) > _LONGEST:
                raise ValueError("it is no bytes, or too many")
            record = self._envelopes.read(body)
            if (record.name, record.task_id) != (wanted.name, wanted.key):
                raise ValueError("it belongs to another key")
            if record.outcome is None or record.outcome.content_type != CLAIM:
                self._require_key(wanted, record.outcome)
                raise ValueError("it names no task")
            task_id = check_task_id(record.outcome.body.decode())
        except (CorruptRecordError, InvalidTaskIdError, ValueError) as exc:
            key = printable(wanted.key)
            raise CorruptRecordError(
                f"what {self._service.url} holds for key {key!r} of {wanted.name} cannot be read: "
                f"{exc}; forget_key() removes it"
            ) from exc
        return wanted._replace(
            task_id=task_id,
            at=record.queued_at or 0.0,
            attempt=record.attempt,
            is_sent=record.is_terminal,
        )

    def _require_key(self, wanted: Claim, outcome: Payload | None) -> None:
        """Tell who could not decrypt a claim that another process can: it is not to be removed."""
        inside, key_id = encryption_of("" if outcome is None else outcome.content_type)
        if key_id and inside == CLAIM:
            raise KeyMissingError(
                f"who holds key {printable(wanted.key)!r} of {wanted.name} is encrypted with the "
                f"key {printable(key_id)!r}, which encryption_keys here does not have"
            )


def _repeated(claim: Claim) -> Claim:
    """Return what a second claim of one key in one call has come to: the first one is sent."""
    return claim._replace(is_ours=False, is_sent=True)
