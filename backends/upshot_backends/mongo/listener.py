"""The push connection: one change stream for every waiter of a process."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, final

from pymongo.errors import PyMongoError

from upshot.waiting import Hint, Listener
from upshot_backends.mongo import documents
from upshot_backends.mongo.connection import MongoDatabase
from upshot_backends.mongo.driver import RefusedForNowError, bounded

__all__ = ["MongoListener"]

_LONGEST: Final = 0.5  # seconds that the server holds a request for events while there are none
_OVERDUE: Final = 5.0  # seconds after which a silent server counts as gone
_GOODBYE: Final = 1.0  # seconds for closing the stream


@final
class MongoListener(Listener):
    """Hears of all terminal records in the collection, and keeps those of subscribed keys.

    So a subscription is a set's entry and costs the server nothing; opening a stream takes 7 ms.
    pymongo cannot be interrupted while it waits for events: a second thread does that, on one of
    the pool's connections, and ends at most half a second after `close`.

    Args:
        database: where the collection is.
        timeout: seconds to open the stream.
    """

    def __init__(self, database: MongoDatabase, timeout: float) -> None:
        with bounded(timeout):
            # From now on, nothing is missed: events begin with what comes after this moment.
            self._stream = database.watch(documents.changes(), _LONGEST)
        self._keys: set[str] = set()
        self._heard: deque[Hint] = deque()
        self._awake = threading.Event()
        self._failure: Exception | None = None
        self._closed = False
        threading.Thread(target=self._run, name="upshot-stream-mongodb", daemon=True).start()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._keys.update(keys)

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._keys.difference_update(keys)

    def wait(self, timeout: float) -> Sequence[Hint]:
        self._awake.wait(timeout)
        self._awake.clear()
        if self._failure is not None:
            raise self._failure
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def interrupt(self) -> None:
        self._awake.set()

    def close(self) -> None:
        self._closed = True

    # -- the stream's own thread ----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                with bounded(_OVERDUE):
                    event = self._stream.try_next()
                if event is not None:
                    self._take(event)
                elif not self._stream.alive:
                    raise RefusedForNowError("the change stream ended: the collection is gone", 0)
        except Exception as exc:  # whatever it is, the hub's thread has to hear of it
            self._failure = exc
            self._awake.set()
        # The database may be closed already, and its connections with it.
        with contextlib.suppress(PyMongoError), bounded(_GOODBYE):
            self._stream.close()

    def _take(self, event: dict[str, Any]) -> None:
        key = event["documentKey"]["_id"]
        if not isinstance(key, str) or key not in self._keys:
            return
        if event.get("forgotten") is True:
            self._heard.append(Hint(key, b""))
        else:
            self._heard.append(Hint(key, event.get("body") or None))
        self._awake.set()
