"""What a worker's log looks like: text for people, or JSON for programs."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO, final

from upshot.errors import DriverMissingError
from upshot.execution import in_hand
from upshot.masking import mask
from upshot.record import printable

__all__ = ["begin_logging"]

_TEXT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
_TRACE_PARTS: Final = 4  # of a `traceparent`: version, trace id, span id, flags


def begin_logging(level: str, log_format: str) -> None:
    """Write what is logged to stderr, unless the app has said where it goes.

    Args:
        level: a level's name, such as `"INFO"`.
        log_format: `"text"` or `"json"`.

    Raises:
        DriverMissingError: JSON is asked for, and what writes it is not installed.
    """
    handler = _StderrHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_json_formatter())
        handler.addFilter(_add_task)
        logging.captureWarnings(True)  # or they would be lines that are no JSON
    else:
        handler.setFormatter(_TextFormatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler])


@final
class _TextFormatter(logging.Formatter):
    """Lets no text that is logged pass for a line of the log, drive a terminal, or tell a password.

    A task's exception is whatever its arguments made of it: control characters are escaped, every
    line of a record but its first is indented, and passwords in URLs are masked.
    """

    def format(self, record: logging.LogRecord) -> str:
        first, *others = mask(super().format(record)).split("\n")
        return "\n".join([printable(first), *(f"    {printable(line)}" for line in others)])


@final
class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a task may have closed what it was.

    A process that was started without a stderr has None.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if sys.stderr is not None:
            super().emit(record)


def _json_formatter() -> logging.Formatter:
    try:
        from upshot.worker.json_lines import JsonLines  # few workers write JSON
    except ImportError as exc:
        raise DriverMissingError(
            "logs in JSON need the module python-json-logger, which is not installed: "
            'pip install "upshot[jsonlogs]"',
            name="pythonjsonlogger",
        ) from exc
    return JsonLines()


def _add_task(record: logging.LogRecord) -> bool:
    """Say which task a line is about: the one that this thread or coroutine works on."""
    execution = in_hand.get()
    if execution is None:
        return True
    task, run = execution.context(None), execution.observed
    about: dict[str, object] = {
        "task_id": task.task_id,
        "task_name": task.name,
        "queue": task.queue,
        "attempt": task.attempt,
        "worker": task.worker,
    }
    trace = run.notes.get("traceparent", "").split("-") if run else []
    if len(trace) == _TRACE_PARTS:
        about |= {"trace_id": trace[1], "span_id": trace[2]}
    for name, value in about.items():
        record.__dict__.setdefault(name, value)  # what a task says of it itself stays
    return True
