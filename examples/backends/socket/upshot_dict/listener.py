"""How waiters hear of results: one connection of its own, on which the server speaks first."""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from upshot.listening import Hint, Listener

from .connection import Connection, Message

__all__ = ["DictListener"]

_MOST: Final = 1000  # hints taken at once, so that steady traffic leaves time to act on them


class DictListener(Listener):
    """Hears of the keys that it has subscribed to.

    Args:
        address: host and port of the server.
        timeout: seconds to connect in, and for each answer after that.
    """

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self._timeout = timeout
        self._connection = Connection(address, timeout)
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._connection.socket, selectors.EVENT_READ)
        self._selector.register(self._alarm, selectors.EVENT_READ)
        self._heard: deque[Hint] = deque()

    def subscribe(self, keys: Sequence[str]) -> None:
        self._ask({"do": "subscribe", "keys": list(keys)})

    def unsubscribe(self, keys: Sequence[str]) -> None:
        self._ask({"do": "unsubscribe", "keys": list(keys)})

    def wait(self, timeout: float) -> Sequence[Hint]:
        if self._heard:
            timeout = 0.0  # what came before an answer is news already
        while len(self._heard) < _MOST and (ready := self._selector.select(timeout)):
            rung = [key.fileobj is self._alarm for key, _ in ready]
            if not all(rung):
                self._heard.append(_hint(self._connection.receive(self._timeout)))
            if any(rung):
                self._alarm.recv(4096)
                break
            timeout = 0.0
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):  # rung already, or closed
            self._bell.send(b"\0")

    def close(self) -> None:
        self._selector.close()
        for each in (self._connection, self._alarm, self._bell):
            each.close()

    def _ask(self, request: Message) -> None:
        """Ask, and keep what is heard before the answer."""
        deadline = time.monotonic() + self._timeout
        self._connection.send(request, self._timeout)
        while "key" in (message := self._connection.receive(deadline - time.monotonic())):
            self._heard.append(_hint(message))


def _hint(message: Message) -> Hint:
    body: str | None = message["body"]
    return Hint(message["key"], None if body is None else base64.b64decode(body))
