"""Spans and moments as people write them: `90s`, `2h`, `1d12h`, `2026-01-31T08:00Z`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

import click

from upshot import clock

__all__ = ["EXPIRES", "MOMENT", "SPAN", "moment_of", "seconds_of", "short_span"]

if TYPE_CHECKING:
    _FloatType = click.ParamType[float, Any]
    _OptionalType = click.ParamType[float | None, Any]
else:
    _FloatType = _OptionalType = click.ParamType  # generic for type checkers only

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_PART: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)([wdhms])", re.ASCII)
_SPAN: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_EXAMPLES: Final = "such as 90s, 15m, 2h, 7d, 2w or 1d12h"


def seconds_of(text: str) -> float:
    """Return how many seconds a span has; a number alone is seconds.

    Raises:
        ValueError: it is no span.
    """
    plain = text.strip().lower()
    if _NUMBER.fullmatch(plain):
        return float(plain)
    if not _SPAN.fullmatch(plain):
        raise ValueError(f"{text!r:.100} is no span of time, {_EXAMPLES}")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(plain))


def moment_of(text: str, now: float) -> float:
    """Return the seconds since the epoch of a moment: a span before `now`, or in ISO 8601.

    Without an offset it is UTC, and without a time the day's beginning.

    Raises:
        ValueError: it is neither, or lies in no calendar.
    """
    try:
        moment = now - seconds_of(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text.strip())
            moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(
                f"{text!r:.100} is no moment: give a span before now, {_EXAMPLES}; or a date and "
                "time in ISO 8601, such as 2026-01-31T08:00Z"
            ) from None
    if not clock.is_moment(moment):
        raise ValueError(f"{text!r:.100} lies in no calendar")
    return moment


def short_span(seconds: float) -> str:
    """Return a span in a few characters: `0.05 s`, `12.3 s`, `4m10s`, `2h05m`, `3d4h`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole % 60:02}s"


@final
class _Span(_FloatType):
    """A span of time, in seconds."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return value if isinstance(value, float) else seconds_of(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@final
class _Expires(_OptionalType):
    """More than no seconds; `none` is None, which means for ever."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        if value == "none" or isinstance(value, float):
            return None if value == "none" else value
        seconds = SPAN.convert(value, param, ctx)
        if not seconds:
            self.fail("it is more than no time; none keeps records for ever", param, ctx)
        return seconds


@final
class _Moment(_FloatType):
    """A moment, in seconds since the epoch."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return value if isinstance(value, float) else moment_of(str(value), clock.now())
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


SPAN: Final = _Span()
"""A span of time, as float seconds."""

EXPIRES: Final = _Expires()
"""A span of time, as float seconds; or `none`, as None."""

MOMENT: Final = _Moment()
"""A moment, as float seconds since the epoch."""
