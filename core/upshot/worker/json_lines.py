"""Log records as JSON, one object a line, whatever is logged."""

from __future__ import annotations

import json
from functools import partial
from logging import LogRecord, makeLogRecord
from typing import Any, Final, cast, final

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

    def format(self, record: LogRecord) -> str:
        """Return one line; a text that its arguments do not fit is logged without them."""
        try:
            return super().format(record)
        except Exception as flaw:
            told = makeLogRecord(record.__dict__)
            told.msg, told.args = (
                f"{_text(record.msg)}: {type(flaw).__name__} with {safe_repr(record.args)}",
                None,
            )
            return super().format(told)

    def add_fields(
        self, log_data: dict[str, Any], record: LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Collect what is logged; nothing that is logged passes for another level or logger."""
        super().add_fields(log_data, record, message_dict)
        own = {"level": record.levelname, "logger": record.name, "process": record.process}
        log_data.update(own)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return one line; a task may log a circle, NaN, or what raises when it is looked at."""
        try:
            return self._masked(log_data)
        except Exception:
            lone = {_text(name): self._lone(value) for name, value in log_data.items()}
            return super().jsonify_log_record(lone)

    def _lone(self, value: object) -> object:
        """Return what JSON can hold of one value."""
        try:
            return json.loads(self._masked({"": value}))[""]
        except Exception:
            return mask(safe_repr(value))

    def _masked(self, log_data: dict[str, Any]) -> str:
        """Return JSON without passwords, however deep they are in it."""
        text = super().jsonify_log_record(log_data)
        return json.dumps(_hidden(json.loads(text))) if "://" in text else text


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {mask(name): _hidden(member) for name, member in members.items()}
    return list(map(_hidden, cast("list[object]", value))) if isinstance(value, list) else value


def _text(value: object) -> str:
    return mask(value) if type(value) is str else mask(safe_repr(value))
