"""From a call to a message in a queue, with the QUEUED record beside it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, final

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Broker, QueuedMessage
from upshot.claims import Claim
from upshot.client import ResultClient
from upshot.envelope import unfinished
from upshot.errors import (
    ConfigError,
    EncodeError,
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    UnsupportedError,
)
from upshot.message import Message
from upshot.observing import Observer, Sending, Watch
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


class _Post(NamedTuple):
    """What leaves for one request.

    Attributes:
        parcel: the message.
        record: its QUEUED record; None if there is to be none.
        claim: what its key is claimed by; None without a key.
    """

    parcel: QueuedMessage
    record: StoredRecord | None
    claim: Claim | None = None


@final
class Outbox:
    """Sends requests: encodes, claims keys, records QUEUED, publishes; many in one batch."""

    def __init__(
        self,
        settings: Settings,
        *,
        codecs: Codecs,
        client: ResultClient,
        broker: OpenService[Broker],
        sealing: Sealing | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._settings = settings
        self._codecs = codecs
        self._client = client
        self._broker = broker
        self.repeats: set[int] = set()
        """Which of the requests, by position, found their keys taken."""
        self._sealing = sealing
        self._observers = observers

    def send(self, requests: Sequence[Request]) -> list[Message]:
        """Send all requests, and return what was sent, now or under the same key before.

        Everything is checked and encoded before the first byte leaves: one bad request sends none.
        They leave a thousand at a time, in their order.

        Raises:
            EncodeError: an argument cannot be encoded; the path begins with `args` or `kwargs`.
            InvalidTaskIdError, ConfigError, PayloadTooLargeError: a request is wrong.
            UnsupportedError: a request has a key, or its task yields, and the backend keeps none.
            ServiceError: broker or backend could not take them. Some may have been sent; its
                `task_ids` are those to send all of them again with.
        """
        now = clock.now()
        reply_to = self._client.backend.reply_to
        messages = [self._message(request, now, reply_to) for request in requests]
        if self._observers and messages:
            sending = Sending(messages, self.repeats)
            with Watch(self._observers, lambda each: each.sending(sending)):
                return self._leave(requests, messages, now)
        return self._leave(requests, messages, now)

    def _leave(
        self, requests: Sequence[Request], messages: list[Message], now: float
    ) -> list[Message]:
        """Encode the messages of `requests`, and let them leave."""
        posts = [self._posted(message, now) for message in messages]
        longest = self._broker.current.capabilities.max_message_bytes
        for post in posts:
            if len(post.parcel.body) > longest:
                raise PayloadTooLargeError(
                    f"a message has {len(post.parcel.body)} bytes; {self._broker.url} takes "
                    f"{longest}",
                    size=len(post.parcel.body),
                    limit=longest,
                )
        wanted = {
            index: self._wanted(request, messages[index])
            for index, request in enumerate(requests)
            if request.key is not None
        }
        try:
            if wanted:
                self._send_claimed(wanted, messages, posts, now)
            else:
                self._post_all(posts)
        except ServiceError as exc:
            _name_tasks(exc, messages, "key" if len(wanted) == len(messages) else "task_id")
            raise
        self._client.newest = messages[-1].task_id if messages else ""
        return messages

    def _wanted(self, request: Request, message: Message) -> Claim:
        """Return the claim that a request with a key makes."""
        expires = request.key_expires
        if expires == -1.0:
            expires = self._settings.task_key_expires
        if message.ignore_result:
            raise ConfigError(
                f"{message.name}: a key is for a task that keeps its result, by which one of two "
                "messages knows that the other was run; with ignore_result, give none"
            )
        self._client.claims.require(expires)
        key = str(request.key)
        return Claim(message.name, key, message.task_id, expires, clock.now())

    def _send_claimed(
        self,
        wanted: Mapping[int, Claim],
        messages: list[Message],
        posts: Sequence[_Post],
        now: float,
    ) -> None:
        """Claim keys, and send what is ours; name in `messages` the tasks that hold the others."""
        leaving = {index: post for index, post in enumerate(posts) if index not in wanted}
        positions = list(wanted)
        for settled in self._client.claims.take(list(wanted.values())):
            for place, claim in settled:
                index = positions[place]
                if not claim.is_ours or claim.attempt > 1:
                    self.repeats.add(index)
                    messages[index] = messages[index]._replace(task_id=claim.task_id)
                if claim.is_ours:
                    leaving[index] = self._posted(messages[index], now)._replace(claim=claim)
            self._post_all([leaving.pop(index) for index in sorted(leaving)])

    def _post_all(self, posts: Sequence[_Post]) -> None:
        for batch in batches(posts):  # so that the time of one call need not do for all
            self._post(batch)

    def _posted(self, message: Message, now: float) -> _Post:
        return _Post(
            queued(message, self._sealing),
            self._queued_record(message, now) if self._is_tracked(message) else None,
        )

    def _post(self, posts: Sequence[_Post]) -> None:
        """Record and publish what has been claimed; then its claims are final."""
        parcels = [post.parcel for post in posts]
        records = [post.record for post in posts if post.record is not None]
        claims = [post.claim for post in posts if post.claim is not None]
        if self._broker.current.joins(self._client.backend):
            if claims:
                sealed = self._client.claims.sealed
                records += [sealed(claim._replace(is_sent=True)) for claim in claims]
            self._broker.call(lambda b, seconds: b.publish(parcels, records, seconds))
            return
        self._send_apart(parcels, records)
        if claims:
            self._client.claims.mark_sent(claims)

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
                self._client.forget(ours, plain=True)
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
        ignore = _first(
            request.ignore_result, spec and spec.ignore_result, settings.task_ignore_result
        )
        if spec is not None and spec.streams and not ignore:
            self._require_streams(request.name)
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
            ignore_result=ignore,
            reply_to=reply_to,
            result_expires=result_expires,
            time_limit=request.time_limit,
            soft_time_limit=request.soft_time_limit,
            retry=request.retry,
        )

    def _require_streams(self, name: str) -> None:
        if not self._client.capabilities.streams:
            raise UnsupportedError(
                f"{name} yields, and {self._client.url} keeps no streams: return a list, or choose "
                "a backend that keeps them, such as redis://"
            )


def _name_tasks(error: ServiceError, messages: Sequence[Message], same: str) -> None:
    """Tell by which ids the tasks can be sent again, which nobody knows but us.

    `same` is what the repetition of a call has in common with it: `task_id`, or else `key`.
    """
    error.task_ids = tuple(message.task_id for message in messages)
    some = ", ".join(repr(printable(task_id)) for task_id in error.task_ids[:_NAMED])
    more = f" and {len(messages) - _NAMED} more" if len(messages) > _NAMED else ""
    error.add_note(
        f"any of these tasks may have been sent: {some}{more} (the error's task_ids); to send them "
        f"for sure, repeat the call with the same {same}"
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
