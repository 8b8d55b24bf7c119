"""The context of a span on its way: in the headers of a message, and in the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from upshot.message import Message
from upshot.observing import Run, Sending, notes_of
from upshot.record import Record

__all__ = ["add_context", "context_of", "given_contexts", "link_to_run", "note_context"]

_NOTE: Final = "traceparent"
_BATCH: Final = "upshot-batch"  # a header: of how many messages the sending was
_W3C: Final = TraceContextTextMapPropagator()


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return what a propagator can read; the other headers are the sender's own."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _is_given(message: Message) -> bool:
    return not propagate.get_global_textmap().fields.isdisjoint(message.headers)


def given_contexts(sending: Sending) -> list[Link]:
    """Return links to the contexts that callers gave messages of theirs, by `headers`."""
    links: list[Link] = []
    for message in sending.messages:
        if _is_given(message):
            context, _ = context_of(message)
            found = trace.get_current_span(context).get_span_context()
            if found.is_valid:
                links.append(Link(found))
    return links


def add_context(sending: Sending) -> None:
    """Let the current context travel with messages, but for those that were given one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if carrier and len(sending.messages) > 1:
        carrier[_BATCH] = str(len(sending.messages))
    for position, message in enumerate(sending.messages):
        if not _is_given(message):
            for name, value in carrier.items():
                sending.add_header(position, name, value)


def context_of(message: Message) -> tuple[Context, list[Link]]:
    """Return the context in which a message is run, and links to where it was sent.

    That of a batch has no span: its runs have traces of their own. Baggage is in either.
    """
    context = propagate.extract(_texts(message.headers), context=Context())
    sent = trace.get_current_span(context).get_span_context()
    if not sent.is_valid:
        return context, []
    if _BATCH in message.headers:
        context = trace.set_span_in_context(INVALID_SPAN, context)
    return context, [Link(sent)]


def note_context(run: Run, span: SpanContext) -> None:
    """Let the record of a run say which span it was."""
    if span.is_valid:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(span), Context()))
        run.note(_NOTE, carrier[_NOTE])


def link_to_run(record: Record) -> SpanContext | None:
    """Return the context of the run that left a record; None if that is not known."""
    noted = notes_of(record).get(_NOTE)
    if noted is None:
        return None
    context = _W3C.extract({_NOTE: noted}, context=Context())
    found = trace.get_current_span(context).get_span_context()
    return found if found.is_valid else None
