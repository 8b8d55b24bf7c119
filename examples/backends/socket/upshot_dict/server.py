"""A dict behind a socket, for results: `python -m upshot_dict.server [PORT]`.

Every message is a JSON object behind its length in 4 bytes. A client asks, and gets one answer:

    {"do": "store", "records": [[key, rank, barrier, seconds or null, body], …]}  {"applied": […]}
    {"do": "load", "keys": […]}                                                   {"bodies": […]}
    {"do": "delete", "keys": […]}                                                 {}
    {"do": "scan", "prefix": "…"}                                                 {"keys": […]}
    {"do": "subscribe", "keys": […]}, {"do": "unsubscribe", "keys": […]}          {}
    {"do": "look"}                                           everything, for the conformance suite

Bodies are Base64 text, null for none. Whoever has subscribed to a key hears {"key": …, "body": …}
at any time, also before the answer to another question: "" means deleted, null that the body is
long and has to be loaded. One thread does it all, so no two clients change a record at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final, NamedTuple

__all__ = ["DEFAULT_PORT", "Shelf", "serve"]

DEFAULT_PORT: Final = 7077

_SWEEP: Final = 60.0  # seconds between two removals of what has expired and nobody asked for
_NEVER: Final = 2**31 - 1  # the barrier of a terminal record
_CARRIED: Final = 8192  # characters of the longest body that comes along with its notification
_BACKLOG: Final = 2**26  # bytes that a client may leave unread before it is cut off

Message = dict[str, Any]


class _Slot(NamedTuple):
    body: str
    barrier: int
    end: float  # on the monotonic clock; infinite for "never"


class Shelf:
    """The records, and who listens to which of them."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._listeners: dict[str, set[asyncio.StreamWriter]] = {}
        self._clients: set[asyncio.StreamWriter] = set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it leaves."""
        self._clients.add(writer)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                request = json.loads(await reader.readexactly(size))
                _send(writer, self._answer(request, writer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass  # it is gone, or speaks another language
        finally:
            self._clients.discard(writer)
            self._unsubscribe(list(self._listeners), writer)
            writer.close()

    def sweep(self) -> None:
        """Drop what has expired."""
        for key in list(self._slots):
            self._live(key)

    def _answer(self, request: Message, writer: asyncio.StreamWriter) -> Message:
        match request.get("do"):
            case "store":
                return {"applied": [self._store(*record) for record in request["records"]]}
            case "load":
                slots = map(self._live, request["keys"])
                return {"bodies": [slot and slot.body for slot in slots]}
            case "delete":
                for key in request["keys"]:
                    self._slots.pop(key, None)
                    self._tell(key, "")
            case "scan":
                self.sweep()
                return {"keys": [key for key in self._slots if key.startswith(request["prefix"])]}
            case "subscribe":
                for key in request["keys"]:
                    self._listeners.setdefault(key, set()).add(writer)
            case "unsubscribe":
                self._unsubscribe(request["keys"], writer)
            case "look":
                return self._everything()
            case unknown:
                return {"error": f"this server cannot do {unknown!r}"}
        return {}

    def _live(self, key: str) -> _Slot | None:
        slot = self._slots.get(key)
        if slot is not None and slot.end <= time.monotonic():
            del self._slots[key]
            return None
        return slot

    def _store(self, key: str, rank: int, barrier: int, expires: float | None, body: str) -> bool:
        stored = self._live(key)
        if stored is not None and stored.barrier > rank:
            return False
        end = float("inf") if expires is None else time.monotonic() + expires
        self._slots[key] = _Slot(body, barrier, end)
        if barrier == _NEVER:
            self._tell(key, body if len(body) <= _CARRIED else None)
        return True

    def _tell(self, key: str, body: str | None) -> None:
        for writer in list(self._listeners.get(key, ())):
            _send(writer, {"key": key, "body": body})

    def _unsubscribe(self, keys: list[str], writer: asyncio.StreamWriter) -> None:
        for key in keys:
            listeners = self._listeners.get(key, set())
            listeners.discard(writer)
            if not listeners:
                self._listeners.pop(key, None)

    def _everything(self) -> Message:
        now = time.monotonic()
        records = {
            key: [slot.barrier, None if slot.end == float("inf") else slot.end - now, slot.body]
            for key, slot in self._slots.items()
        }
        return {
            "records": records,
            "listened": list(self._listeners),
            "clients": len(self._clients),
        }


async def serve(port: int) -> None:
    """Listen on 127.0.0.1 until the process is ended."""
    shelf = Shelf()
    server = await asyncio.start_server(shelf.talk, "127.0.0.1", port)
    async with server:
        while True:
            await asyncio.sleep(_SWEEP)
            shelf.sweep()


def _send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Put a message on its way; waiting for one client would make all others wait."""
    if writer.transport.get_write_buffer_size() > _BACKLOG:
        writer.transport.abort()
        return
    data = json.dumps(message).encode()
    writer.write(len(data).to_bytes(4, "big") + data)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT))
