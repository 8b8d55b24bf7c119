"""The interface that a result backend implements: seven hooks and a declaration.

An author writes `__init__`, `store`, `load`, `delete`, `close` and, where the service can,
`listen` and `scan`. Everything a user sees (ids, namespaces, encoding, limits, error translation,
retries, waiting, asyncio) is built on them once, in `upshot.client`.

What every hook may rely on:

- it is called from any thread, several at a time, and never after `close`;
- after a fork the child gets an object of its own, made from the same URL: no hook sees a
  connection that another process opened;
- keys are unique per namespace and task id, at most `capabilities.max_key_bytes` long;
- `timeout` is the number of seconds this one call may take; pass it to the socket;
- a driver's own retries are off; raise what the driver raises and list it in `driver_errors`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from upshot.errors import UnsupportedError
from upshot.listening import Listener
from upshot.retrying import DriverErrors
from upshot.url import Url

if TYPE_CHECKING:  # what only `upshot doctor` needs
    from contextlib import AbstractContextManager

    from upshot.finding import Finding

__all__ = [
    "Announcing",
    "Backend",
    "Capabilities",
    "Diagnosing",
    "Rehearsing",
    "StoredRecord",
    "Sweeping",
    "WithTables",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do. No field has a default: an author decides each one.

    Attributes:
        shared: another process that opens the same URL sees the records.
        reread: a record may be read any number of times.
        intermediate: records that are not terminal (QUEUED, STARTED, RETRY) can be read.
        atomic: the guard of `Backend.store` holds against concurrent writers.
        push: waiters are woken by notification. False: the core polls.
        persistent: records survive a restart of the service in its usual configuration.
        transactional: a batch given to `store` is applied as a whole or not at all.
        batch: a batch of any size costs a bounded number of round trips per 1 000 items.
        scan: stored keys can be enumerated.
        streams: what a task yields can be kept beside its record, an item under a key of its own,
            and be read from there while the task runs.
        visibility: seconds until every reader sees a finished write; 0 for at once.
        poll_interval: longest pause between two looks at an awaited record without push, seconds.
        expiry_resolution: a record is gone at most this many seconds after it expired; None if
            records cannot expire.
        max_record_bytes: longest encoded record that `store` takes.
        max_key_bytes: longest key that the service takes; longer ones arrive hashed.
        text_keys: keys may hold any printable text; False: only ASCII without spaces, and the
            core hashes the others.
    """

    shared: bool
    reread: bool
    intermediate: bool
    atomic: bool
    push: bool
    persistent: bool
    transactional: bool
    batch: bool
    scan: bool
    streams: bool
    visibility: float
    poll_interval: float
    expiry_resolution: float | None
    max_record_bytes: int
    max_key_bytes: int
    text_keys: bool


class StoredRecord(NamedTuple):
    """An encoded record on its way to a backend.

    Attributes:
        key: where it is stored.
        body: the encoded record; opaque.
        rank: how late in the task's life it is; see `upshot.states`.
        barrier: the rank that a later write must reach to replace it.
        expires: seconds from now until it must be gone; None keeps it for ever.
        task_id, state, name: repeated from the record for services that index them.
        reply_to: the address to send it to, for backends that carry results; otherwise "".
    """

    key: str
    body: bytes
    rank: int
    barrier: int
    expires: float | None
    task_id: str
    state: str
    name: str
    reply_to: str


class Backend(abc.ABC):
    """Keeps results on one service, or carries them to whoever submitted the task.

    Class attributes to define:

        capabilities: what this service can do. An instance may replace it by a narrower one
            when it learns more by connecting, never by a wider one.
        contract: the version of the conformance contract that it was written for.
        driver_errors: how to read the driver's exceptions.

    What only a backend defines that carries results:

        over_broker: its URL without a host, such as `rpc://`, means the broker's connection.
        reply_to: the address of this process, which every message takes along so that a worker's
            records are sent there; "" for a backend that stores. `__init__` sets it, without any
            I/O. The QUEUED record of a task is stored before its message leaves, so `store` can
            make the address reachable in time. A record whose `reply_to` is "" or this address
            is for this process itself.
    """

    capabilities: Capabilities
    contract: ClassVar[str] = "1.0"
    driver_errors: ClassVar[DriverErrors] = DriverErrors()
    over_broker: ClassVar[bool] = False
    reply_to: str = ""

    @abc.abstractmethod
    def __init__(self, url: Url) -> None:
        """Read the URL, and nothing more: connect when the first hook is called.

        Raises:
            UrlError: the URL lacks something or has an unknown `upshot_…` parameter.
        """

    @abc.abstractmethod
    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        """Store a batch in order and tell for each record whether it was applied.

        The guard, atomic per key: a record applies iff nothing is stored under its key (or what
        is stored has expired), or `stored.barrier <= record.rank`. A record that does not apply
        changes nothing, not even the expiry. An applied one replaces body, barrier and expiry
        together. With `push`, whoever subscribed to the key is notified of a terminal record.
        """

    @abc.abstractmethod
    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        """Return for each key, in order, the body stored under it, or None.

        An expired record is None, even if the service has not removed it yet. Loading changes
        nothing and creates nothing. Where several servers have their own keys each, the driver's
        exception may stand for the keys of one that is down, so that waits for the others' go on.
        """

    @abc.abstractmethod
    def delete(self, keys: Sequence[str], timeout: float) -> None:
        """Remove the keys and all that was stored beside them; unknown keys are fine.

        With `push`, whoever subscribed to a key is notified with an empty body.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give back sockets, threads and descriptors; idempotent, raises nothing."""

    def listen(self, timeout: float) -> Listener | None:
        """Open one push connection for all waiters of this process; None if there is no push."""
        return None

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        """Yield every stored key that starts with `prefix`, each at least once.

        Only called if `capabilities.scan`. `timeout` is for each round trip.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot enumerate its records")


# What some kinds of service need besides, or can do. A backend that has the method is found by it;
# the others need nothing of the kind.


@runtime_checkable
class Announcing(Protocol):
    """A backend that carries results, and can tell of a beginning without being waited for."""

    def announce(self, record: StoredRecord) -> bool:
        """Send a record that is not terminal, in a moment; it may be lost, and raises nothing.

        A later record of its task may take its place on the way. Returns at once: False only if
        the record is known not to apply.
        """
        ...


@runtime_checkable
class Sweeping(Protocol):
    """A backend on a service that does not remove expired records by itself."""

    def sweep(self, limit: int, timeout: float) -> int:
        """Remove up to `limit` expired records; return how many: fewer than `limit`, no more."""
        ...


@runtime_checkable
class WithTables(Protocol):
    """A backend whose service has to be given tables before it can keep anything."""

    def ddl(self) -> str:
        """Return the statements that create the tables, for whoever may run them; no I/O."""
        ...


# The two that `upshot doctor` asks for; a broker may have them too.


@runtime_checkable
class Diagnosing(Protocol):
    """A backend or broker that knows what is to be looked at on its service."""

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """Look at the service, and change nothing there.

        The first finding is its name and version. What this user may not ask is a note. What can
        be tried on any service, such as writing, is not asked for here. Raises what hooks raise.
        """
        ...

    def advise(self, said: str) -> str:
        """Return what to change where the driver, or the service, said this; "" if unknown."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """A backend or broker that makes something on its service when it is first used."""

    def rehearsal(self, timeout: float) -> AbstractContextManager[Url | None]:
        """Find a place where hooks can be tried without leaving anything on the service.

        Within the block, that is the URL that is given: it leads to what is made there on first
        use, and is removed at the end. None says that all is there at the own URL, so that nothing
        would be made. Nothing but throw-away names is written or removed.
        """
        ...
