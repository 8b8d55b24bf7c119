"""A result as the admin shows it: text for people, escaped, and never too long for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from upshot import App, clock
from upshot.cli.bounded import bounded, laid_out, masked, report_of, spelt
from upshot.cli.printing import safe
from upshot.cli.report import Report
from upshot.errors import CorruptRecordError
from upshot.record import Record
from upshot.states import State
from upshot_contrib.django.models import Result

__all__ = ["Shown", "moment_shown", "state_label"]

_LONGEST: Final = 20_000  # characters on the page; of a longer text, its head and its tail
_WIDTH: Final = 100  # columns of a value


@final
class Shown:
    """One result, decoded as far as the app's serializers take it.

    Args:
        app: whose result it is.
        result: the row.
    """

    def __init__(self, app: App, result: Result) -> None:
        self.record: Record | None = None
        self._report = Report.of(app, result.task_id, None)
        self._remarks: list[str] = []
        self._has_value = False
        try:
            self.record = result.record
        except CorruptRecordError as exc:
            self._remarks = [_unreadable(str(exc))]
            return
        part, left_out = bounded(app, self.record)
        self._report = report_of(app, part)
        self._remarks = [*left_out]
        if self._report.unreadable:
            self._remarks.append(_unreadable(self._report.unreadable))
        elif self.record.state == State.SUCCESS:
            self._has_value = part.outcome is not None

    @property
    def has(self) -> Mapping[str, bool]:
        """What a result may have or not have, and whether this one does."""
        return {
            "value": self._has_value or bool(self._remarks),
            "progress": self._report.info is not None,
            "traceback": self._report.failure is not None,
        }

    def value(self) -> SafeString | str:
        """What a task returned that succeeded, and what of the record cannot be shown, and why."""
        value = _block(laid_out(self._report.value, _WIDTH)) if self._has_value else ""
        return format_html("{}{}", value, "; ".join(self._remarks))

    def progress(self) -> SafeString | str:
        """The last progress report."""
        return _block(laid_out(self._report.info, _WIDTH))

    def traceback(self) -> SafeString | str:
        """How the task failed, or the last attempt of it."""
        failure = self._report.failure
        if failure is None:
            return ""
        return _block(masked(failure.traceback or f"{failure.type_name}: {failure.message}"))

    def moment(self, name: str) -> str | None:
        """Return one of the record's moments; None if it is not known."""
        return None if self.record is None else moment_shown(getattr(self.record, name))


def moment_shown(seconds: float | None) -> str | None:
    """Return a moment in the current time zone, to the second.

    None for None, and for what no calendar has.
    """
    moment = (
        clock.to_datetime(seconds) if seconds is not None and clock.is_moment(seconds) else None
    )
    if moment is None:
        return None
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z")


def state_label(state: str) -> SafeString:
    """Return a state's name with its colour."""
    ended = state.lower() if state in (State.SUCCESS, State.FAILURE, State.REVOKED) else "open"
    return format_html('<span class="upshot-state upshot-{}">{}</span>', ended, state)


def _unreadable(why: str) -> str:
    return f"It cannot be read here: {safe(why)}"


def _block(text: str) -> SafeString:
    if len(text) > _LONGEST:
        left = len(text) - _LONGEST
        half = _LONGEST // 2
        text = f"{text[:half]}\n\n… {left:,} characters are left out …\n\n{text[-half:]}"
    return format_html('<pre class="upshot-text">{}</pre>', spelt(text))
