"""Log records as JSON, one object a line, whatever is logged."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final, final

from pythonjsonlogger.json import JsonFormatter

from upshot.failure.texts import safe_repr
from upshot.masking import mask

__all__ = ["JsonLines"]

_FIELDS: Final = "%(levelname)s %(name)s %(message)s %(process)d"
_NAMES: Final = {
    "levelname": "level",
    "name": "logger",
    "task_name": "task",
    "exc_info": "exception",
    "stack_info": "stack",
}
_PLAIN: Final = (str, int, bool, type(None))


@final
class JsonLines(JsonFormatter):
    """Writes `time`, `level`, `logger`, `message`, `process` and whatever else a record has.

    `time` is in UTC as RFC 3339 has it. All is ASCII, and control characters are escaped as JSON
    does. Passwords in URLs are masked. What no JSON can hold stands there as Python shows it.
    """

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            _FIELDS,
            rename_fields=_NAMES,
            defaults={"time": ""},  # so that it comes first
            timestamp="time",
            json_serializer=partial(json.dumps, allow_nan=False),
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Hide passwords."""
        return {
            name: mask(value) if isinstance(value, str) else value
            for name, value in log_data.items()
        }

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return one line; a task may log a circle, NaN, or what raises when it is looked at."""
        try:
            return super().jsonify_log_record(log_data)
        except Exception:
            time = log_data["time"]
            plain = {
                str(name): value if type(value) in _PLAIN else mask(safe_repr(value))
                for name, value in log_data.items()
            }
            return super().jsonify_log_record(plain | {"time": time})
