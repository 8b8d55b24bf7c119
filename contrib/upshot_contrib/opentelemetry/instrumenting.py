"""The one call that an application makes."""

from __future__ import annotations

from opentelemetry.trace import TracerProvider

from upshot import App
from upshot.errors import ConfigError
from upshot_contrib.opentelemetry.spans import Spans

__all__ = ["instrument"]


def instrument(app: App, *, tracer_provider: TracerProvider | None = None) -> None:
    """Make a span of each sending, each run and each reading of the app's tasks.

    Call it where the app is made, so that workers and callers both do. Spans of one task belong
    together: the run of a message is a child of its sending, and what reads the result links to
    the run. The context travels in the message's headers, as the global propagator writes it: by
    default `traceparent`, `tracestate` and `baggage`. It links the reader to the run by 68 bytes
    in the record.

    A batch, such as `Task.map` sends, is one span. Each of its runs begins a trace of its own, with
    a link to that span: one trace of a thousand runs would be kept, or dropped, as a whole.

    Args:
        app: not yet instrumented.
        tracer_provider: what makes the spans; None takes the global one when the first is made.

    Raises:
        ConfigError: the app is instrumented already.
    """
    if any(isinstance(each, Spans) for each in app.observers):
        raise ConfigError("spans are made of this app already: call instrument() once")
    app.observe(Spans(app, tracer_provider))
