"""Which span begins when, and what it tells.

Names and attributes are those of the semantic conventions for messaging, version 1.44:
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/. Where these leave a choice:
`messaging.system` is `upshot`, whatever service carries the messages; a run is named after its
task, as a queue carries many; and the run of a single message is a child of its sending, besides
the link that the conventions ask for. Arguments and results are in no span.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final, final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from upshot import App
from upshot.errors import Retry
from upshot.message import Message
from upshot.observing import Ended, Observer, Reading, Run, Sending
from upshot_contrib.opentelemetry.carrying import (
    add_context,
    context_of,
    given_contexts,
    link_to_run,
    note_context,
)
from upshot_contrib.opentelemetry.failing import fail

__all__ = ["Spans"]

_SYSTEM: Final = "messaging.system"
_TYPE: Final = "messaging.operation.type"
_NAME: Final = "messaging.operation.name"
_QUEUE: Final = "messaging.destination.name"
_COUNT: Final = "messaging.batch.message_count"
_ID: Final = "messaging.message.id"
_CLIENT: Final = "messaging.client.id"
_TASK: Final = "upshot.task.name"
_STATE: Final = "upshot.task.state"

_Attributes = dict[str, Any]


@final
class Spans(Observer):
    """Makes a span of each sending, each run and each reading.

    Args:
        app: whose broker they name.
        provider: what makes them; None takes the global one, which may be set later.
    """

    def __init__(self, app: App, provider: TracerProvider | None) -> None:
        self._app = app
        self._provider = provider
        self._open: dict[Run, Span] = {}

    def __repr__(self) -> str:
        return "<Spans>"

    @cached_property
    def _tracer(self) -> Tracer:
        return trace.get_tracer(
            "upshot", version("upshot"), self._provider, "https://opentelemetry.io/schemas/1.44.0"
        )

    @cached_property
    def _place(self) -> _Attributes:
        """Return what is the same in all spans; the service's address only if it has one."""
        place: _Attributes = {_SYSTEM: "upshot"}
        url = self._app.broker_url
        hosts = () if url.scheme == "memory" else url.hosts
        if len(hosts) == 1 and hosts[0][0]:
            place["server.address"] = hosts[0][0]
            if hosts[0][1] is not None:
                place["server.port"] = hosts[0][1]
        return place

    # -- sending ----------------------------------------------------------------------------------

    @contextmanager
    def sending(self, sending: Sending) -> Generator[None]:
        """Surround the sending of one message or a batch; child spans are the driver's own."""
        messages = sending.messages
        queues = {message.queue for message in messages}
        attributes = self._place | {_TYPE: "send", _NAME: "send"}
        if len(queues) == 1:
            attributes[_QUEUE] = messages[0].queue
        if len(messages) == 1:
            attributes |= {_ID: messages[0].task_id, _TASK: messages[0].name}
        else:
            attributes[_COUNT] = len(messages)
        with self._tracer.start_as_current_span(
            _named("send", attributes.get(_QUEUE)),
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            links=given_contexts(sending),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            add_context(sending)
            with _failing(span):
                yield
            if sending.repeats:
                span.set_attribute("upshot.repeats", len(sending.repeats))
                if len(messages) == 1:
                    span.set_attribute(_ID, messages[0].task_id)

    # -- running ----------------------------------------------------------------------------------

    @contextmanager
    def running(self, run: Run) -> Generator[None]:
        """Surround a run, in the context that came with its message: what it sends is a child."""
        span, surroundings = self._begin(run.message, run.attempt, run.worker)
        self._open[run] = span
        note_context(run, span.get_span_context())
        token = context.attach(trace.set_span_in_context(span, surroundings))
        try:
            yield
        finally:
            context.detach(token)
            self._end(run, run.exception)

    def ended(self, ended: Ended) -> None:
        """End the span of a run that was cut short; make one for a task that was not run."""
        if ended.run is not None:
            if ended.exception is not None:
                ended.run.state = ended.state
                self._end(ended.run, ended.exception)
        elif ended.message is not None:
            span, _ = self._begin(ended.message, ended.attempt, ended.worker)
            span.set_attribute(_STATE, str(ended.state))
            if ended.exception is not None:
                fail(span, ended.exception)
            span.end()

    def closing(self) -> None:
        """End what goes down with the process, and let all leave that has ended."""
        while self._open:
            _, span = self._open.popitem()
            span.set_status(Status(StatusCode.ERROR, "the worker's process ended meanwhile"))
            span.set_attribute("error.type", "upshot.errors.WorkerLostError")
            span.end()
        flush = getattr(self._provider or trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:  # the SDK's has it
            flush()

    def _begin(self, message: Message, attempt: int, worker: str) -> tuple[Span, Context]:
        surroundings, links = context_of(message)
        span = self._tracer.start_span(
            _named("process", message.name),
            surroundings,
            kind=SpanKind.CONSUMER,
            attributes=self._place
            | {
                _TYPE: "process",
                _NAME: "process",
                _QUEUE: message.queue,
                _ID: message.task_id,
                _CLIENT: worker,
                _TASK: message.name,
                "upshot.task.attempt": attempt,
                "upshot.task.retries": message.retries,
            },
            links=links,
        )
        return span, surroundings

    def _end(self, run: Run, exc: BaseException | None) -> None:
        """End the span of a run, if nobody has."""
        span = self._open.pop(run, None)
        if span is None:
            return
        try:
            if run.state:
                span.set_attribute(_STATE, str(run.state))
            if exc is not None and type(exc) is not Retry:  # who asks for a retry has not failed
                fail(span, exc)
        finally:
            span.end()

    # -- reading ----------------------------------------------------------------------------------

    @contextmanager
    def reading(self, reading: Reading) -> Generator[None]:
        """Surround a wait. It is nobody's parent: a coroutine that is left may end elsewhere."""
        attributes = self._place | {_TYPE: "receive", _NAME: "get"}
        if reading.queue:
            attributes[_QUEUE] = reading.queue
        if len(reading.task_ids) == 1:
            attributes[_ID] = reading.task_ids[0]
        else:
            attributes[_COUNT] = len(reading.task_ids)
        span = self._tracer.start_span(
            _named("get", reading.queue), kind=SpanKind.CLIENT, attributes=attributes
        )
        try:
            with _failing(span):
                yield
            for record in reading.records:
                found = link_to_run(record)
                if found is not None:
                    span.add_link(found, {_ID: record.task_id})
            if len(reading.records) == 1:
                record = reading.records[0]
                span.set_attributes({_TASK: record.name, _STATE: str(record.state)})
        finally:
            span.end()


@contextmanager
def _failing(span: Span) -> Generator[None]:
    """Mark a span as failed by what is raised, a cancellation included."""
    try:
        yield
    except BaseException as exc:
        fail(span, exc)
        raise


def _named(operation: str, what: object) -> str:
    return f"{operation} {what}" if what else operation
