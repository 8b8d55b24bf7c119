"""From a call to a message in a queue, with the QUEUED record beside it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Broker, QueuedMessage
from upshot.client import ResultClient
from upshot.envelope import unfinished
from upshot.errors import (
    ConfigError,
    EncodeError,
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
)
from upshot.message import Message
from upshot.outcome import encode_value
from upshot.reading import batches
from upshot.record import Record, check_task_id, printable
from upshot.request import Request, check_request
from upshot.sealing import Sealing, seal_message
from upshot.serializers import Codecs
from upshot.service import OpenService
from upshot.settings import Settings
from upshot.states import State

__all__ = ["Outbox", "queued"]

_NAMED: Final = 3  # ids that an error's note spells out


def queued(message: Message, sealing: Sealing | None = None) -> QueuedMessage:
    """Return `message` in the form that a broker takes; None signs and encrypts nothing."""
    return QueuedMessage(
        # One task has one message per attempt: publishing it again leaves one in the queue.
        message_id=f"{message.task_id}/{message.attempt}",
        queue=message.queue,
        body=seal_message(message, sealing),
        priority=message.priority,
        eta=message.eta,
    )


@final
class Outbox:
    """Sends requests: encodes, records QUEUED, publishes; many in one batch."""

    def __init__(
        self,
        settings: Settings,
        *,
        codecs: Codecs,
        client: ResultClient,
        broker: OpenService[Broker],
        sealing: Sealing | None = None,
    ) -> None:
        self._settings = settings
        self._codecs = codecs
        self._client = client
        self._broker = broker
        self._sealing = sealing

    def send(self, requests: Sequence[Request]) -> list[Message]:
        """Send all requests, and return what was sent.

        Everything is checked and encoded before the first byte leaves: one bad request sends none.
        They leave a thousand at a time, in their order.

        Raises:
            EncodeError: an argument cannot be encoded; the path begins with `args` or `kwargs`.
            InvalidTaskIdError, ConfigError, PayloadTooLargeError: a request is wrong.
            ServiceError: broker or backend could not take them. Some may have been sent; its
                `task_ids` are those to send all of them again with.
        """
        now = clock.now()
        reply_to = self._client.backend.reply_to
        messages = [self._message(request, now, reply_to) for request in requests]
        posts = [
            (
                queued(message, self._sealing),
                self._queued_record(message, now) if self._is_tracked(message) else None,
            )
            for message in messages
        ]
        longest = self._broker.current.capabilities.max_message_bytes
        for parcel, _ in posts:
            if len(parcel.body) > longest:
                raise PayloadTooLargeError(
                    f"a message has {len(parcel.body)} bytes; {self._broker.url} takes {longest}",
                    size=len(parcel.body),
                    limit=longest,
                )
        try:
            for batch in batches(posts):  # so that the time of one call need not do for all
                self._post(
                    [parcel for parcel, _ in batch],
                    [record for _, record in batch if record is not None],
                )
        except ServiceError as exc:
            _name_tasks(exc, messages)
            raise
        self._client.newest = messages[-1].task_id if messages else ""
        return messages

    def _post(self, parcels: Sequence[QueuedMessage], records: Sequence[StoredRecord]) -> None:
        if self._broker.current.joins(self._client.backend):
            self._broker.call(lambda b, seconds: b.publish(parcels, records, seconds))
        else:
            self._send_apart(parcels, records)

    def _send_apart(
        self, parcels: Sequence[QueuedMessage], records: Sequence[StoredRecord]
    ) -> None:
        """Record first, then publish: a record may never come after its outcome.

        If nobody knows whether the messages arrived, the records stay: the tasks may have ended
        by now, and what is forgotten then are their outcomes.
        """
        applied = self._client.store_encoded(records)
        try:
            self._broker.call(lambda b, seconds: b.publish(parcels, (), seconds))
        except ServiceUnavailableError:
            raise
        except ServiceError:
            ours = [r.task_id for r, was in zip(records, applied, strict=True) if was]
            with contextlib.suppress(ServiceError):  # the first error is the one to tell
                self._client.forget(ours)
            raise

    def _is_tracked(self, message: Message) -> bool:
        # What carries results learns by this record which ones to expect, whatever the setting.
        wanted = self._settings.task_track_queued or bool(message.reply_to)
        return wanted and not message.ignore_result

    def _queued_record(self, message: Message, now: float) -> StoredRecord:
        record = Record(
            task_id=message.task_id,
            state=State.QUEUED,
            name=message.name,
            queue=message.queue,
            queued_at=message.queued_at,
        )
        expires = unfinished(self._expires_of(message))
        if expires is not None and message.eta is not None:
            expires += max(0.0, message.eta - now)  # it must outlast the wait for its turn
        return self._client.encode(record, expires=expires, reply_to=message.reply_to)

    def _expires_of(self, message: Message) -> float | None:
        sent = message.result_expires
        return self._settings.result_expires if sent == -1.0 else sent

    def _message(self, request: Request, now: float, reply_to: str) -> Message:
        spec, settings = request.spec, self._settings
        task_id = check_task_id(uuid.uuid4().hex if request.task_id is None else request.task_id)
        check_request(request)
        queue = _first(request.queue, spec and spec.queue, settings.task_default_queue)
        priority = _first(request.priority, spec and spec.priority, settings.task_default_priority)
        ignore = _first(request.ignore_result, spec and spec.ignore_result)
        if request.result_expires == -1.0 and spec is not None:
            result_expires = spec.result_expires
        else:
            result_expires = request.result_expires
        return Message(
            task_id=task_id,
            name=request.name,
            arguments=_arguments(self._codecs, request, settings.task_serializer),
            queue=queue,
            priority=priority,
            eta=_eta(request, now),
            expires=request.expires,
            queued_at=now,
            headers=_headers(request.headers),
            ignore_result=settings.task_ignore_result if ignore is None else ignore,
            reply_to=reply_to,
            result_expires=result_expires,
            time_limit=request.time_limit,
            soft_time_limit=request.soft_time_limit,
            retry=request.retry,
        )


def _name_tasks(error: ServiceError, messages: Sequence[Message]) -> None:
    """Tell by which ids the tasks can be sent again, which nobody knows but us."""
    error.task_ids = tuple(message.task_id for message in messages)
    some = ", ".join(repr(printable(task_id)) for task_id in error.task_ids[:_NAMED])
    more = f" and {len(messages) - _NAMED} more" if len(messages) > _NAMED else ""
    error.add_note(
        f"any of these tasks may have been sent; to send them for sure, repeat the call with the "
        f"same task_id: {some}{more} (the error's task_ids)"
    )


def _first(*choices: Any) -> Any:
    return next((choice for choice in choices if choice is not None), None)


def _arguments(codecs: Codecs, request: Request, default: str) -> Any:
    serializer = request.serializer or default
    arguments = [list(request.args), dict(request.kwargs)]
    try:
        return encode_value(codecs, arguments, serializer=serializer, root="arguments")
    except EncodeError as exc:
        path = exc.path.replace("arguments[0]", "args", 1).replace("arguments[1]", "kwargs", 1)
        message = str(exc).replace(exc.path, path) if exc.path else str(exc)
        raise EncodeError(f"{request.name}: {message}", path=path) from exc


def _eta(request: Request, now: float) -> float | None:
    if request.countdown is None:
        return request.eta
    if request.eta is not None:
        raise ConfigError("give countdown or eta, not both")
    return now + request.countdown


def _headers(headers: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not headers:
        return {}
    try:
        json.dumps(dict(headers), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise EncodeError(f"headers hold plain JSON values only: {exc}", path="headers") from exc
    return dict(headers)
