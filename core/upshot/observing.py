"""What looks on while an app sends, runs and reads: for tracing, metrics and the like.

An `Observer` is told of everything, and changes nothing but the headers of messages. One that
raises breaks no call and no task: the log says so, once a minute. What is to take part in a task,
and let it fail if it cannot, belongs in `App.around_task`.

Backends and brokers are not observed: their drivers are, by what is made for each of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, final

from upshot.errors import ConfigError
from upshot.interrupts import shield
from upshot.message import Message
from upshot.record import Record
from upshot.seldom import Seldom

__all__ = [
    "Ended",
    "Observer",
    "Reading",
    "Run",
    "Sending",
    "Watch",
    "add_observer",
    "close_all",
    "notes_of",
    "tell",
]

logger = logging.getLogger(__name__)

_LONGEST_NOTE: Final = 256
"""Characters of a note; a `traceparent` has 55 (https://www.w3.org/TR/trace-context/)."""

_said: Final[dict[type, Seldom]] = {}  # of as many classes as observe


@final
class Sending:
    """Messages on their way to the broker, one or a batch.

    Args:
        messages: encoded after the observers have seen them, and before anything leaves.
        repeats: filled while they leave: the positions of those that are not sent, as an earlier
            call had their key.
    """

    def __init__(self, messages: MutableSequence[Message], repeats: set[int]) -> None:
        self.messages = messages
        self.repeats = repeats

    def add_header(self, position: int, name: str, value: str) -> None:
        """Let a text travel with one of the messages; one that is there already stays.

        Raises:
            TypeError, UnicodeEncodeError: it is no text.
        """
        for text in (name, value):
            text.encode() if type(text) is str else _refuse(text)
        message = self.messages[position]
        headers = {name: value, **message.headers}
        self.messages[position] = message._replace(headers=headers)


@final
@dataclass(slots=True, eq=False)
class Run:
    """One run of a task.

    Attributes:
        message: what asked for it.
        attempt: its number, redeliveries counted.
        worker: who runs it.
        state: SUCCESS, FAILURE or RETRY once it is over, REVOKED for a message that had expired; ""
            before, and if the process ends with the run.
        exception: what ended it, unless that was its return; there while observers are left.
        notes: what `note` was given.
    """

    message: Message
    attempt: int
    worker: str
    state: str = ""
    exception: BaseException | None = None
    notes: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, name: str, value: str) -> None:
        """Keep a short text in the record of what the run leaves, for whoever reads that.

        Only what is noted before the function is called is kept. It stands behind the record's
        token, which says which delivery wrote it, and which nobody compares with another task's.

        Raises:
            ValueError: it is no printable ASCII, has a space, is empty, or longer than 256
                characters; or the name has a `=`.
        """
        text = f"{name}={value}"
        if not (name and value and text.isascii() and text.isprintable()) or " " in text:
            raise ValueError(f"a note is printable ASCII without a space, not {text!r}")
        if len(text) > _LONGEST_NOTE or "=" in name:
            raise ValueError(f"a note has {_LONGEST_NOTE} characters at most, and one name")
        self.notes[name] = value

    def noted(self, token: str) -> str:
        """Return a delivery's token with the notes behind it."""
        return " ".join([token, *(f"{name}={value}" for name, value in self.notes.items())])


def notes_of(record: Record) -> dict[str, str]:
    """Return what observers noted of the run that left `record`; who stored it may have lied."""
    pairs = (each.partition("=") for each in record.token.split(" ")[1:])
    return {name: value for name, equals, value in pairs if equals}


@final
@dataclass(slots=True, eq=False)
class Reading:
    """A wait for results, by `get()`, `await` or the same of a `ResultSet`.

    Attributes:
        task_ids: whose ends are awaited, each once.
        queue: where they were sent, "" if unknown.
        records: how they ended, once all have.
    """

    task_ids: Sequence[str]
    queue: str
    records: Sequence[Record] = ()


@final
@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ended:
    """What a worker has stored as the end of a task, or of an attempt: then the state is RETRY.

    Attributes:
        message: None if it could not be read.
        state: SUCCESS, FAILURE, RETRY or REVOKED.
        attempt: its number.
        worker: which one.
        run: None if the task was not run.
        exception: why it was not run, or was cut short; None if the run came to its end.
    """

    message: Message | None
    state: str
    attempt: int
    worker: str
    run: Run | None = None
    exception: BaseException | None = None


class Observer:
    """Is told of what an app does: a base class whose methods do nothing.

    They are called on the thread that sends, runs or reads, from many at once, and in each process
    of a worker, which is a fork of the one that made the observer. A context manager is entered
    before and left after; it sees what is raised, and cannot hold it up.
    """

    def sending(self, sending: Sending) -> AbstractContextManager[object]:
        """Return what surrounds the sending of messages; headers are added when it is entered."""
        return nullcontext()

    def running(self, run: Run) -> AbstractContextManager[object]:
        """Return what surrounds one run of a task, with decoding and encoding.

        It is left when the function has returned, before the outcome is stored; not at all if the
        process ends meanwhile. Context variables that it sets are seen in the task, in a coroutine
        too.
        """
        return nullcontext()

    def reading(self, reading: Reading) -> AbstractContextManager[object]:
        """Return what surrounds a wait for results; in a coroutine, others run meanwhile."""
        return nullcontext()

    def ended(self, ended: Ended) -> None:
        """Note how a task has ended: stored, if its record is kept. Each worker tells its own."""

    def closing(self) -> None:
        """Send what is left: a process of a worker ends now, without what `atexit` would do.

        It has three seconds, or a tenth of one if the worker is stopped cold; what takes longer is
        given up.
        """

    def process_gone(self, pid: int) -> None:
        """Clean up after a process of the worker that has ended. Called in the worker's main one.

        That one has a single thread, and must keep it: other processes are forked from it.
        """


def add_observer(observer: object, observers: list[Observer]) -> None:
    """Add one to those of an app.

    Raises:
        ConfigError: it is none, or it is among them.
    """
    if not isinstance(observer, Observer):
        raise ConfigError(f"an observer is an upshot.observing.Observer, not {observer!r:.300}")
    if any(observer is each for each in observers):
        raise ConfigError(f"{observer!r:.300} observes this app already")
    observers.append(observer)


@final
class Watch(AbstractContextManager[None]):
    """Enters the context managers of all observers, and leaves them, whatever they do.

    Args:
        observers: who looks on.
        begin: asks one for its context manager.
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        begin: Callable[[Observer], AbstractContextManager[object]],
    ) -> None:
        self._observers = observers
        self._begin = begin
        self._entered: list[tuple[Observer, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        try:
            with shield():  # a task's time limit is no failure of the observer that it would strike
                self._enter()
        except BaseException as exc:  # the limit after all, or Ctrl-C: there will be no block
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise

    def _enter(self) -> None:
        for observer in tuple(self._observers):
            try:
                entered = self._begin(observer)
                entered.__enter__()
            except Exception as flaw:
                _complain(observer, flaw)
            else:
                self._entered.append((observer, entered))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with shield():
            while self._entered:
                observer, entered = self._entered.pop()
                try:
                    entered.__exit__(kind, error, traceback)
                except Exception as flaw:
                    if flaw is not error:
                        _complain(observer, flaw)


def tell(observers: Sequence[Observer], what: Callable[[Observer], None]) -> None:
    """Tell each observer something by calling `what` with it."""
    for observer in tuple(observers):
        try:
            what(observer)
        except Exception as flaw:
            _complain(observer, flaw)


def close_all(observers: Sequence[Observer], seconds: float) -> None:
    """Call `closing` of all observers; return after `seconds` at the latest."""
    if not observers:
        return
    work = threading.Thread(
        target=lambda: tell(observers, lambda each: each.closing()),
        name="upshot-observers",
        daemon=True,
    )
    try:
        work.start()
    except RuntimeError:  # the process has no room for a thread any more
        return
    work.join(seconds)


def _refuse(text: object) -> None:
    raise TypeError(f"a header that an observer adds is text, not {type(text).__name__}")


def _complain(observer: Observer, flaw: Exception) -> None:
    """Say that an observer has failed: once a minute for each class, as it may do so always."""
    kind = type(observer)
    if _said.setdefault(kind, Seldom()).is_due():
        logger.warning("%s.%s failed", kind.__module__, kind.__qualname__, exc_info=flaw)
