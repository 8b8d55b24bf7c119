"""The way of messages into one process: a fetch, or an exchange for one that has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, cast, final

from upshot.backend import StoredRecord
from upshot.broker import Broker, Delivery, Exchanging, Settlement
from upshot.engine.host import Host
from upshot.engine.settling import tell_broker
from upshot.errors import UpshotError

__all__ = ["Intake"]

_FETCH_WAIT: Final = 1.0  # seconds that one fetch waits, and so the longest delay of a warm stop
_BURST_WAIT: Final = 0.05  # seconds in burst mode, while tasks of this process may send others
_OWN_WAIT: Final = 0.05  # seconds where only this process sends; tests stop such workers often


@final
class Intake:
    """Takes one message at a time, for a thread that is free.

    One at a time: a message that is not running yet is better off with another worker, and a task
    that takes its process down must not count against its neighbours.

    Args:
        host: the app's side.
        queues: names, served fairly.
        worker: the name to lease to.
        is_alone: one thread both takes messages and runs them. Then what it tells the broker of
            one that has ended brings it the next, where the broker can do both in one step.
        may_go_on: tells whether a next message is wanted.
    """

    def __init__(
        self,
        host: Host,
        *,
        queues: Sequence[str],
        worker: str,
        is_alone: bool,
        may_go_on: Callable[[], bool],
    ) -> None:
        self.nothing_on_its_way = threading.Event()
        """Set when all that the broker has given is known to be somebody's task."""
        self.nothing_on_its_way.set()
        self._host = host
        self._queues = queues
        self._worker = worker
        self._may_go_on = may_go_on
        self._exchanges = is_alone and isinstance(host.broker.current, Exchanging)
        self._is_joined = self._exchanges and host.broker.current.joins(host.client.backend)
        self._wait = _FETCH_WAIT if host.broker.current.capabilities.shared else _OWN_WAIT
        self._ahead: list[Delivery] = []
        self._is_at_hand = False

    @property
    def has_taken(self) -> bool:
        """Whether something was taken that is nobody's task yet."""
        return self._is_at_hand or bool(self._ahead)

    def handed_over(self) -> None:
        """Note that what `fetch` has returned is somebody's task now."""
        self._is_at_hand = False
        if not self._ahead:
            self.nothing_on_its_way.set()

    @property
    def joins(self) -> bool:
        """Whether `end` can be called now: broker and results are one service."""
        return self._is_joined and self._may_go_on()

    def fetch(self, *, is_burst: bool, is_busy: bool) -> list[Delivery]:
        """Return what an exchange has brought, or fetch a message; waits unless in burst mode.

        Args:
            is_burst: nobody waits for messages that are not there.
            is_busy: tasks of this process are running.
        """
        if self._ahead:
            self._is_at_hand = True
            found, self._ahead = self._ahead, []
            return found
        wait = self._wait if not is_burst else _BURST_WAIT if is_busy else 0.0
        lease = self._host.settings.worker_lease

        def fetch(broker: Broker, _: float) -> list[Delivery]:
            found = broker.fetch(self._queues, limit=1, wait=wait, lease=lease, worker=self._worker)
            self._is_at_hand = bool(found)
            return list(found)

        return self._host.broker.call(fetch)

    def settle(self, settlement: Settlement) -> bool:
        """Tell the broker how a delivery ended; tell whether it was still this worker's.

        Raises:
            ServiceError: the broker could not be told; the lease tells it.
        """
        in_doubt = False
        if self._exchanges and self._may_go_on():
            try:
                return self._exchange(settlement, None)[1]
            except UpshotError:
                raise
            except Exception:  # no memory for the next message: this one is settled without it
                in_doubt = True
        return tell_broker(self._host, settlement) or in_doubt

    def end(self, settlement: Settlement, record: StoredRecord) -> tuple[bool, bool]:
        """Store the outcome and end its delivery in one step, all or nothing.

        Only where `joins`.

        Returns:
            Whether the record applied, False also if the answer to a first try was lost; and
            whether the delivery was still this worker's.

        Raises:
            ServiceError: nobody knows whether it was done.
        """
        return self._exchange(settlement, record)

    def _exchange(self, settlement: Settlement, record: StoredRecord | None) -> tuple[bool, bool]:
        tries = 0

        def exchange(broker: Broker, seconds: float) -> tuple[bool, bool]:
            nonlocal tries
            tries += 1
            applied, ours, found = cast("Exchanging", broker).exchange(
                settlement,
                record,
                self._queues,
                lease=self._host.settings.worker_lease,
                worker=self._worker,
                timeout=seconds,
            )
            self._ahead.extend(found)
            return applied, ours or tries > 1

        self.nothing_on_its_way.clear()
        try:
            return self._host.broker.call(exchange)
        finally:
            if not self._ahead:
                self.nothing_on_its_way.set()
