"""Live updates: server-sent events that carry a part of the page whenever that has changed.

Each browser looks again and again; what they look at is shared, see `upshot_contrib.web.looking`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple, final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from upshot import clock
from upshot.cli.printing import safe
from upshot.errors import UpshotError

__all__ = ["MAX_STREAMS", "EventStream", "Part", "Streams", "fingerprint"]

MAX_STREAMS: Final = 100
"""Browsers that are kept up to date at once; more are told to come back, and can reload."""

_HEARTBEAT: Final = 15.0  # seconds of silence: proxies end connections after 30 or more
_RETRY: Final = 3000  # milliseconds until a browser connects again


class Part(NamedTuple):
    """A part of the page.

    Attributes:
        html: escaped where it has to be.
        is_over: whether it cannot change any more.
    """

    html: str
    is_over: bool = False


def fingerprint(html: str) -> str:
    """Return what tells a part from others: browsers say by it which one they have."""
    return hashlib.sha256(html.encode()).hexdigest()[:16]


@final
class Streams:
    """All streams of one page, for one event loop."""

    def __init__(self) -> None:
        self.open = 0
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether they are to end."""
        return self._stopping.is_set()

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self.open >= MAX_STREAMS

    def stop(self) -> None:
        """End all of them."""
        self._stopping.set()

    async def pause(self, seconds: float) -> bool:
        """Wait; return whether the streams go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return not self.is_stopping


@final
class EventStream(StreamingResponse):
    """Sends a part each time it differs from what the browser has, until it is over.

    Args:
        streams: those that it is one of.
        look: returns the part as it is now. An error of upshot's is told, and it goes on.
        seen: the fingerprint of what the browser has.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        streams: Streams,
        look: Callable[[], Awaitable[Part]],
        *,
        seen: str,
        interval: float,
    ) -> None:
        super().__init__(
            self._events(look, seen, interval),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # or nginx would keep them back
        )
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.open -= 1

    async def _events(
        self, look: Callable[[], Awaitable[Part]], seen: str, interval: float
    ) -> AsyncIterator[str]:
        yield f"retry: {_RETRY}\n\n"
        last, trouble, is_over = clock.monotonic(), "", False
        while not is_over and await self._streams.pause(interval):
            event = ""
            try:
                html, is_over = await look()
            except UpshotError as exc:
                if self._streams.is_stopping:
                    return
                now = safe(str(exc))
                if now != trouble:
                    trouble, event = now, _event("trouble", message=now)
            else:
                version = fingerprint(html)
                if version != seen:
                    event = _event("part", version, html=html)
                elif trouble:
                    event = _event("well")
                seen, trouble = version, ""
            if event or clock.monotonic() - last >= _HEARTBEAT:
                last = clock.monotonic()
                yield event or ": still here\n\n"
        if is_over:
            yield _event("over")


def _event(name: str, version: str = "", **data: str) -> str:
    """Return one event; as JSON in ASCII, no text in it can end it, or begin another."""
    lines = [f"event: {name}", f"data: {json.dumps(data)}", "", ""]
    return "\n".join([f"id: {version}", *lines] if version else lines)
