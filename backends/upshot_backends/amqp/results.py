"""Results as messages of a RabbitMQ server, to the process that submitted the task.

Service: RabbitMQ 3.10 or newer. What it cannot do: show a result to any other process; keep it
when that process ends; tell a worker that a task was revoked, or runs elsewhere already (the
records of both reach the submitter, who takes the first end of the task).

Layout:

    upshot.reply.<32 hex digits>   queue, one for each process and URL, at the default exchange

That a task has begun is told when it has run for 20 ms: most have ended by then.

`replies.py` has the form of a message. What has arrived is kept in the submitter's memory until it
is forgotten or expires, which is counted from its arrival. The queue is declared when the process
first stores a record of its own, so before the message of its first task leaves. It is deleted by
`close`, and by the server 60 seconds after a process has ended without. For as long the server
keeps results for a process that lost its connection: this survives a restart of the server, in
which only records that are not terminal may be lost; one that is killed may forget a queue that was
declared in the same moment. The process says so when it finds its queue gone.

A process that does not read holds up those that have results for it when 100 000 messages or
256 MiB wait in its queue: they try again, until the server gives that process up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from upshot.backend import Backend, Capabilities, StoredRecord
from upshot.listening import Listener
from upshot.url import Url
from upshot_backends.amqp import office
from upshot_backends.amqp.driver import DRIVER_ERRORS

if TYPE_CHECKING:
    from upshot.finding import Finding

__all__ = ["AmqpBackend"]


class AmqpBackend(Backend):
    """`rpc://` over the broker's connection, or `amqp://user:password@localhost:5672//`

    `pyamqp://` and `rpc://` with a host are the same as `amqp://`; `amqps://` is over TLS. The
    options of ours are those of `AmqpOptions`; the others are pika's, see `AmqpConnection`.
    """

    capabilities = Capabilities(
        shared=False,
        reread=True,
        intermediate=True,
        atomic=True,
        push=True,
        persistent=False,
        transactional=False,
        batch=True,
        scan=True,
        streams=False,  # no worker could see that nobody wants the items any more
        visibility=0.0,
        poll_interval=0.05,
        expiry_resolution=0.0,
        max_record_bytes=16 * 2**20,  # what RabbitMQ 4 takes; 3.x takes 128 MiB
        max_key_bytes=1024,
        text_keys=True,
    )
    driver_errors: ClassVar = DRIVER_ERRORS
    over_broker: ClassVar = True

    def __init__(self, url: Url) -> None:
        self._office = office.enter(url, self)
        self.reply_to = self._office.address

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return self._office.store(records, timeout)

    def announce(self, record: StoredRecord) -> bool:
        return self._office.announce(record)

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return self._office.mailbox.get(keys)

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        self._office.mailbox.delete(keys)

    def close(self) -> None:
        office.leave(self._office, self)

    def listen(self, timeout: float) -> Listener:
        return self._office.mailbox.listen()

    def scan(self, prefix: str, timeout: float) -> Iterator[str]:
        return iter(self._office.mailbox.keys(prefix))

    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """See `upshot.backend.Diagnosing`."""
        return self._office.diagnose(timeout)

    def advise(self, said: str) -> str:
        """See `upshot.backend.Diagnosing`."""
        from upshot_backends.amqp import diagnosis  # which nobody else needs

        return diagnosis.advise(said)
