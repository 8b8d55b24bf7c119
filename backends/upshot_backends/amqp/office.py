"""Where the backends of one URL in a process send records from, and get them."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import uuid
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

from upshot import clock, forking
from upshot.backend import StoredRecord
from upshot.seldom import Seldom
from upshot.states import NEVER, State
from upshot.url import Url
from upshot_backends.amqp.announcing import Announcements
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.connection import AmqpConnection
from upshot_backends.amqp.driver import (
    ConnectionLostError,
    NoAnswerError,
    RefusedForNowError,
)
from upshot_backends.amqp.io_thread import IoThread
from upshot_backends.amqp.mailbox import Mailbox
from upshot_backends.amqp.options import AmqpOptions
from upshot_backends.amqp.publisher import Parcel
from upshot_backends.amqp.replies import pack, reply_of, unpack
from upshot_backends.amqp.reply_queue import ReplyQueue

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["Office", "enter", "leave"]

logger = logging.getLogger(__name__)

_ADDRESS: Final = "upshot.reply."  # and 32 hex digits
_LONGEST_NAME: Final = 255  # bytes; AMQP's limit for the name of a queue
_RETURN: Final = 10.0
"""Seconds in which every submitter that lives has found a restarted server and declared its queue.
Such a server may have lost a queue that had just been declared: it confirms that before it has
written it down. They pause for two seconds at most between two attempts."""


@final
class _Receipts:
    """The answers that the sender of a batch to this process itself waits for."""

    def __init__(self, count: int) -> None:
        self.answers = [True] * count
        self._waiting = count
        self._error: Exception | None = None
        self._complete = threading.Event()

    def answer(self, position: int, applied: bool) -> None:
        """Note what became of one record."""
        self.answers[position] = applied
        self._waiting -= 1
        if not self._waiting:
            self._complete.set()

    def fail(self, why: Exception) -> None:
        """Let nobody wait any longer."""
        self._error = why
        self._complete.set()

    def wait(self, timeout: float) -> None:
        """Return when all answers are there.

        Raises:
            NoAnswerError: they are not, after `timeout` seconds.
        """
        if not self._waiting:
            return
        if not self._complete.wait(timeout):
            raise NoAnswerError(f"no receipt within {timeout:g} seconds")
        if self._error is not None:
            raise self._error


@final
class Office:
    """One address, one queue and one mailbox; one thread, which owns both connections.

    Args:
        url: the server.
        options: what its URL says.
        mailbox: where replies to this address go.
    """

    def __init__(self, url: Url, options: AmqpOptions, mailbox: Mailbox) -> None:
        self.address = _ADDRESS + uuid.uuid4().hex
        """The name of the queue, which workers get with each message."""
        self.mailbox = mailbox
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        """The backends that share it, unless they were dropped without being closed."""
        self._url = url
        self._thread = IoThread()
        self._sending = AmqpConnection(url, self._thread, disposable=True)
        self._queue = ReplyQueue(
            self.address,
            url,
            self._thread,
            idle=options.reply_expires,
            on_message=self._take,
        )
        self._asked: dict[str, tuple[_Receipts, int]] = {}
        self._token = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._complaint = Seldom()
        self._announcements = Announcements(self._thread, self._publish)

    def announce(self, record: StoredRecord) -> bool:
        """Send a record that is not terminal, unless a later one of its task is sent soon.

        Returns at once; False if it is for this process, which knows better.
        """
        if self._is_here(record):
            return self.mailbox.put(reply_of(record), expected=True)
        if _is_address(record.reply_to):
            self._announcements.hold(record)
        return True

    def store(self, records: Sequence[StoredRecord], timeout: float) -> list[bool]:
        """Send each record to its address, and tell whether it was applied, if that is here.

        What is for another process counts as applied once the server has it, or knows that the
        process is gone. QUEUED for this one is not sent: nobody has heard of the task yet. It is
        applied at once, when the queue is there that its result will come by.
        """
        deadline = clock.Deadline(timeout)
        if any(self._is_here(record) for record in records):
            self._queue.open(timeout)
        answers: dict[int, bool] = {}
        outgoing: list[int] = []
        keys: set[str] = set()
        for position, record in enumerate(records):
            self._announcements.drop(record.key)
            at_once = record.state == State.QUEUED and record.key not in keys
            if at_once and self._is_here(record):
                answers[position] = self.mailbox.put(reply_of(record), expected=True)
            elif not self._is_here(record) and not _is_address(record.reply_to):
                answers[position] = True
                _note_undeliverable(record)
            else:  # what comes later in the batch for this key must not overtake it
                outgoing.append(position)
                keys.add(record.key)
        if outgoing:
            sent = [records[position] for position in outgoing]
            applied = self._send(sent, deadline.left() or 0.0)
            answers.update(zip(outgoing, applied, strict=True))
        return [answers[position] for position in range(len(records))]

    def diagnose(self, timeout: float) -> list[Finding]:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.amqp.diagnosis import look  # which nobody else needs

        return self._sending.call(look, timeout)

    def close(self) -> None:
        """Delete the queue and end the thread with its connections; raises nothing."""
        self._queue.close()
        self._thread.close()
        for receipts, _ in list(self._asked.values()):
            receipts.fail(ConnectionLostError("closed by this process"))

    def _is_here(self, record: StoredRecord) -> bool:
        return record.reply_to in ("", self.address)

    def _send(self, records: Sequence[StoredRecord], timeout: float) -> list[bool]:
        """Send records, and return as `store` does."""
        deadline = clock.Deadline(timeout)
        here = [self._is_here(record) for record in records]
        receipts = _Receipts(sum(here))
        asked = [self._receipt() if is_here else "" for is_here in here]
        try:
            for position, receipt in enumerate(filter(None, asked)):
                self._asked[receipt] = receipts, position
            routed = self._sending.publish([*map(self._parcel, records, asked)], timeout)
            self._judge(records, routed)
            receipts.wait(deadline.left() or 0.0)
        finally:
            for receipt in asked:
                self._asked.pop(receipt, None)
        answers = iter(receipts.answers)
        return [next(answers) if is_here else True for is_here in here]

    def _receipt(self) -> str:
        return f"{self._token}-{next(self._numbers)}"

    def _parcel(self, record: StoredRecord, receipt: str) -> Parcel:
        is_here = bool(receipt)
        return pack(
            record,
            queue=self.address if is_here else record.reply_to,
            receipt=receipt,
            # The server takes longer to confirm what it has to write to its disk. What the sender
            # itself waits for, and what is soon out of date, need not be there.
            persistent=record.barrier == NEVER and not is_here,
        )

    def _judge(self, records: Sequence[StoredRecord], routed: Sequence[bool]) -> None:
        """Decide what it means that a queue was not there.

        Raises:
            RefusedForNowError: that it will be there soon, or may be.
        """
        if all(routed):
            return
        is_new = clock.monotonic() - self._sending.since < _RETURN
        for record, was_routed in zip(records, routed, strict=True):
            if was_routed:
                continue
            if self._is_here(record):
                raise RefusedForNowError("the queue of this process is gone; it is declared anew")
            if is_new and record.barrier == NEVER:
                raise RefusedForNowError("the submitter's queue is not there, or not yet again")
            _note_undeliverable(record)

    # -- on the thread ------------------------------------------------------------------------

    async def _publish(self, records: Sequence[StoredRecord]) -> None:
        session = await self._sending.session()
        await session.publish([self._parcel(record, "") for record in records])

    def _take(self, message: Received) -> None:
        reply = unpack(message)
        if reply is None:
            if self._complaint.is_due():
                logger.warning("%s: something that is no result came in its place", self._url)
            return
        receipts, position = self._asked.pop(reply.receipt, (None, 0))
        applied = self.mailbox.put(reply, expected=receipts is not None)
        if receipts is not None:
            receipts.answer(position, applied)


def _is_address(text: str) -> bool:
    """Tell a reply queue from what else a forged message may name, such as a queue of tasks."""
    return text.startswith(_ADDRESS) and len(text.encode()) <= _LONGEST_NAME


def _note_undeliverable(record: StoredRecord) -> None:
    logger.log(
        logging.INFO if record.barrier == NEVER else logging.DEBUG,
        "%s of task %r has no reader: the process that submitted it is gone",
        record.state,
        record.task_id,
    )


class _Offices:
    """The open offices of this process, by URL."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[Any, Office] = {}
        self.inherited: dict[Any, Mailbox] = {}
        forking.register(self)

    def after_fork(self) -> None:
        """Leave the parent its offices; its finished results are known here too."""
        self.lock = threading.Lock()
        for key, office in self.open.items():
            forking.abandon(office)
            self.inherited[key] = office.mailbox
        self.open = {}


_OFFICES: Final = _Offices()


def enter(url: Url, user: object) -> Office:
    """Return the office of this process for `url`, opened now if need be, and count `user` in.

    Raises:
        UrlError: the URL has an unknown or wrong parameter.
    """
    options = url.read_options(AmqpOptions)
    key = (url.driver_url("amqps" if url.scheme.endswith("amqps") else "amqp"), options)
    with _OFFICES.lock:
        office = _OFFICES.open.get(key)
        if office is None:
            inherited = _OFFICES.inherited.get(key)
            office = Office(url, options, Mailbox(inherited and inherited.finished()))
            _OFFICES.inherited.pop(key, None)
            _OFFICES.open[key] = office
        office.users.add(user)
        return office


def leave(office: Office, user: object) -> None:
    """Count `user` out; the office closes with the last one, and its records are gone."""
    with _OFFICES.lock:
        office.users.discard(user)
        if office.users:
            return
        _OFFICES.open = {key: each for key, each in _OFFICES.open.items() if each is not office}
    office.close()
