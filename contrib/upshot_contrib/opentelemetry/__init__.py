"""OpenTelemetry: a span for each sending, each run and each reading of a task, linked to another.

`instrument(app)` is all that an application calls. Where spans go is for the OpenTelemetry SDK to
say, which the application sets up; without one, nothing is made. How the pieces fit:

    instrumenting   what `instrument` checks
    spans           the observer: which span begins when, and what it tells
    carrying        the context of a span in the headers of a message, and in a record
    failing         an exception in a span
"""

from __future__ import annotations

from upshot.errors import DriverMissingError

try:
    from upshot_contrib.opentelemetry.instrumenting import instrument
except ModuleNotFoundError as exc:
    if not (exc.name or "").startswith("opentelemetry"):
        raise
    raise DriverMissingError(
        "spans need the module opentelemetry-api, which is not installed: "
        'pip install "upshot[opentelemetry]"',
        name=exc.name,
    ) from exc

__all__ = ["instrument"]
