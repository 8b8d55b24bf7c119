"""An exception in a span, whatever the exception is or does."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Span, Status, StatusCode

from upshot.failure import describe
from upshot.failure.texts import shorten
from upshot.masking import mask

__all__ = ["fail"]

_LONGEST_MESSAGE: Final = 4096
"""Characters: what an exception of a database quotes is longer than anybody reads in a span."""

_LONGEST_TRACEBACK: Final = 65_536


def fail(span: Span, exc: BaseException) -> None:
    """Mark a span as failed: `error.type`, the status, and an event with message and traceback.

    Passwords in URLs are masked. What is no text in UTF-8 is escaped: a span that cannot be encoded
    would take others with it.
    """
    if not span.is_recording():
        return
    failure = describe(exc, encodable=lambda value: False)
    kind = (
        failure.qualname if failure.module == "builtins" else f"{failure.module}.{failure.qualname}"
    )
    message = _safe(shorten(failure.message, _LONGEST_MESSAGE))
    span.set_attribute("error.type", _safe(kind))
    span.set_status(Status(StatusCode.ERROR, message))
    span.add_event(
        "exception",
        {
            "exception.type": _safe(kind),
            "exception.message": message,
            "exception.stacktrace": _safe(shorten(failure.traceback, _LONGEST_TRACEBACK)),
        },
    )


def _safe(text: str) -> str:
    return mask(text).encode(errors="backslashreplace").decode()
