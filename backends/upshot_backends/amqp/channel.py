"""Channels whose methods can be awaited; they belong to the event loop of their connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, final

from pika import spec  # type: ignore[import-untyped]

from upshot_backends.amqp.driver import RefusedForNowError, cancel, refusal

__all__ = ["Channel", "Headers", "Received"]

Headers = Mapping[str, Any]
"""Kept with a message: text, bytes, int and bool; pika has no float."""


class Received(NamedTuple):
    """A message from a queue.

    Attributes:
        tag: what to acknowledge it by, on the channel that it came through.
        redelivered: it may have been delivered before.
        body: as it was published.
        headers: as they were published, and what the server has added (`x-death`).
        correlation_id, kind: AMQP's `correlation-id` and `type`; None if there was none.
    """

    tag: int
    redelivered: bool
    body: bytes
    headers: Headers
    correlation_id: str | None
    kind: str | None


@final
class Channel:
    """One channel. Whatever the server refuses ends the whole channel, and all that is unacked.

    Every method that waits for the server raises what ended the channel, if that comes first. Who
    stops waiting leaves the answer to come later, and in doubt: close the channel then.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        """pika's channel, opened."""
        self.ended: Exception | None = None
        """Why it can be used no more; None while it can."""
        self._pending: set[asyncio.Future[Any]] = set()
        self._got: asyncio.Future[Received | None] | None = None
        self._prefetch: int | None = None
        self._when_ended: list[Callable[[Exception], object]] = []
        self._when_consumer_ends: dict[str, Callable[[Exception], object]] = {}
        raw.add_on_close_callback(self._on_close)
        raw.add_callback(self._on_get_empty, [spec.Basic.GetEmpty], one_shot=False)

    @classmethod
    async def open(cls, connection: Any) -> Channel:
        """Open a channel on pika's connection."""
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def closed(_: Any, why: Exception) -> None:
            if not opened.done():
                opened.set_exception(refusal(why))

        raw = connection.channel(on_open_callback=partial(_settle, opened))
        raw.add_on_close_callback(closed)
        try:
            return cls(await opened)
        except asyncio.CancelledError:
            if raw.is_open or raw.is_opening:
                raw.close()
            raise

    def when_ended(self, callback: Callable[[Exception], object]) -> None:
        """Call `callback(reason)` once the channel has ended; soon, if it has already."""
        if self.ended is not None:
            asyncio.get_running_loop().call_soon(callback, self.ended)
        else:
            self._when_ended.append(callback)

    async def declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> int:
        """Make the queue, or with `passive` only look; return how many messages are ready."""
        answer = await self.ask(
            partial(
                self.raw.queue_declare,
                queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=dict(arguments or {}),
            )
        )
        return int(answer.method.message_count)

    async def purge(self, queue: str) -> int:
        """Remove what is ready in the queue, and return how much that was."""
        return int((await self.ask(partial(self.raw.queue_purge, queue))).method.message_count)

    async def delete(self, queue: str) -> None:
        """Delete the queue with all that is in it; one that does not exist is fine."""
        await self.ask(partial(self.raw.queue_delete, queue))

    async def limit(self, prefetch: int) -> None:
        """Let each consumer that is added from now on have at most `prefetch` unacked messages."""
        if prefetch != self._prefetch:
            await self.ask(partial(self.raw.basic_qos, prefetch_count=prefetch))
            self._prefetch = prefetch

    async def consume(
        self,
        queue: str,
        on_message: Callable[[Received], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None,
        on_end: Callable[[Exception], object] | None = None,
    ) -> str:
        """Have messages pushed to `on_message`, on the loop's thread; return the consumer's tag.

        When its queue is deleted, `on_end(reason)` is called; the channel ends if there is none.
        """

        def take(_: Any, method: Any, properties: Any, body: bytes) -> None:
            on_message(_received(method, properties, body))

        tags: list[str] = []

        def begin(callback: Callable[[Any], None]) -> None:
            tag = self.raw.basic_consume(
                queue,
                take,
                auto_ack=no_ack,
                exclusive=exclusive,
                arguments=dict(arguments or {}),
                callback=callback,
            )
            tags.append(tag)
            if on_end is not None:
                self._when_consumer_ends[tag] = on_end

        self.raw.add_on_cancel_callback(self._on_consumer_cancelled)
        await self.ask(begin)
        return tags[0]

    async def cancel(self, tag: str) -> None:
        """End a consumer; when this returns, nothing more comes from it."""
        await self.ask(partial(cancel, self.raw, tag))
        self._when_consumer_ends.pop(tag, None)

    def dismiss(self, tag: str) -> None:
        """End a consumer without waiting; what is on its way may still come."""
        self.check()
        cancel(self.raw, tag, callback=lambda _: self._when_consumer_ends.pop(tag, None))

    async def get(self, queue: str) -> Received | None:
        """Take the first message of the queue, None if none is ready; one call at a time."""
        got: asyncio.Future[Received | None] = self.expect()
        self._got = got
        self.raw.basic_get(queue, self._on_get_ok)
        return await got

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Remove the message, or with `multiple` all up to it; `sync` tells when that is done."""
        self.check()
        self.raw.basic_ack(tag, multiple=multiple)

    def nack(self, tag: int) -> None:
        """Put the message back where it was, marked as redelivered."""
        self.check()
        self.raw.basic_nack(tag, requeue=True)

    async def sync(self) -> None:
        """Return when the server has worked through all that was sent on this channel before."""
        # "Flow on" is what a channel is anyway, and the one method that does nothing but answer.
        await self.ask(partial(self.raw.flow, True))

    def close(self) -> None:
        """Close it, without waiting; what is unacked goes back to its queues."""
        if self.raw.is_open:
            self.raw.close()

    async def ask(self, method: Callable[..., object]) -> Any:
        """Call a method of pika's with a callback, and return what that is called with."""
        answer: asyncio.Future[Any] = self.expect()
        method(callback=partial(_settle, answer))
        return await answer

    def expect(self) -> asyncio.Future[Any]:
        """Return a future that fails with what ends the channel, unless it is done before."""
        self.check()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.add(answer)
        answer.add_done_callback(self._pending.discard)
        return answer

    def check(self) -> None:
        """Raise what ended the channel, if it has ended."""
        if self.ended is not None:
            raise self.ended.with_traceback(None)

    def _on_get_ok(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._end_get(_received(method, properties, body))

    def _on_get_empty(self, _: Any) -> None:
        self._end_get(None)

    def _end_get(self, found: Received | None) -> None:
        got, self._got = self._got, None
        if got is not None:
            _settle(got, found)

    def _on_consumer_cancelled(self, frame: Any) -> None:
        why = RefusedForNowError("the server ended a consumer: its queue is gone")
        on_end = self._when_consumer_ends.pop(frame.method.consumer_tag, None)
        if on_end is not None:
            on_end(why)
            return
        self.close()
        self._end(why)

    def _on_close(self, _: Any, why: Exception) -> None:
        self._end(refusal(why))

    def _end(self, why: Exception) -> None:
        if self.ended is not None:
            return
        self.ended = why
        for answer in list(self._pending):
            if not answer.done():
                answer.set_exception(why)
        for callback in self._when_ended:
            callback(why)


def _received(method: Any, properties: Any, body: bytes) -> Received:
    return Received(
        tag=method.delivery_tag,
        redelivered=method.redelivered,
        body=body,
        headers=properties.headers or {},
        correlation_id=properties.correlation_id,
        kind=properties.type,
    )


def _settle(answer: asyncio.Future[Any], result: object) -> None:
    """Give an answer to who may have stopped waiting for it."""
    if not answer.done():
        answer.set_result(result)
