"""The push connection: one change stream for every waiter of a process."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, final

from pymongo.errors import PyMongoError

from upshot import clock
from upshot.listening import Hint, Listener
from upshot_backends.mongo import documents
from upshot_backends.mongo.connection import MongoDatabase, Stream
from upshot_backends.mongo.driver import Document, RefusedForNowError, bounded

__all__ = ["MongoListener"]

_LONGEST: Final = 0.5  # seconds that the server holds a request for events while there are none
_OVERDUE: Final = 5.0  # seconds after which a silent server counts as gone
_GOODBYE: Final = 1.0  # seconds for closing the stream
_REST: Final = 60.0  # seconds without a subscription after which the stream is closed


@final
class MongoListener(Listener):
    """Hears of all terminal records in the collection, and keeps those of subscribed keys.

    So a subscription is an entry in a set, and costs the server nothing. The stream does: each
    one has the server look at every write. It is closed when nobody has waited for a while, and
    opened again, in a few milliseconds, by the next subscription.

    pymongo cannot be interrupted while it waits for events. So a second thread does that, on one
    of the pool's connections. `close` waits for its end: half a second, and no longer than a
    second if the server is silent.

    Args:
        database: where the collection is.
        timeout: seconds to open the stream.
        rest: seconds without a subscription until it is closed.
    """

    def __init__(self, database: MongoDatabase, timeout: float, *, rest: float = _REST) -> None:
        self._database = database
        self._timeout = timeout
        self._rest = rest
        self._lock = threading.Lock()
        self._keys: set[str] = set()
        self._used_at = clock.monotonic()
        self._heard: deque[Hint] = deque()
        self._awake = threading.Event()
        self._failure: Exception | None = None
        self._is_open = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._open()

    def subscribe(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._keys.update(keys)
            is_open = self._is_open
        if not is_open:
            self._open()

    def unsubscribe(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._keys.difference_update(keys)
            self._used_at = clock.monotonic()

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
        if self._thread is not None:
            self._thread.join(_GOODBYE)

    def _open(self) -> None:
        """Open the stream. It tells of all that comes after this moment."""
        with bounded(self._timeout):
            stream = self._database.watch(documents.changes(), _LONGEST)
        self._is_open = True
        self._thread = threading.Thread(
            target=self._run, args=(stream,), name="upshot-stream-mongodb", daemon=True
        )
        self._thread.start()

    # -- the stream's own thread ----------------------------------------------------------------

    def _run(self, stream: Stream) -> None:
        try:
            while self._goes_on():
                with bounded(_OVERDUE):
                    event = stream.try_next()
                if event is not None:
                    self._take(event)
                elif not stream.alive:
                    raise RefusedForNowError("the change stream ended: the collection is gone", 0)
        except Exception as exc:  # whatever it is, the hub's thread has to hear of it
            self._failure = exc
            self._awake.set()
        # The database may be closed already, and its connections with it.
        with contextlib.suppress(PyMongoError), bounded(_GOODBYE):
            stream.close()

    def _goes_on(self) -> bool:
        with self._lock:
            if not self._keys and clock.monotonic() - self._used_at >= self._rest:
                self._is_open = False
            return self._is_open and not self._closed

    def _take(self, event: Document) -> None:
        key = event["documentKey"]["_id"]
        if not isinstance(key, str) or key not in self._keys:
            return
        if event.get("forgotten") is True:
            self._heard.append(Hint(key, b""))
        else:
            self._heard.append(Hint(key, event.get("body") or None))
        self._awake.set()
