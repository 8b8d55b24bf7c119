"""A result as the admin shows it: text for people, escaped, and never too long for a page."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Final, final

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from upshot import App, clock
from upshot.cli.report import Report
from upshot.errors import CorruptRecordError
from upshot.record import Record, printable
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
        self._unreadable = ""
        try:
            self.record = result.record
        except CorruptRecordError as exc:
            self._unreadable = str(exc)
        self._report = Report.of(app, result.task_id, self.record)
        self._unreadable = self._unreadable or self._report.unreadable

    @property
    def has(self) -> Mapping[str, bool]:
        """What a result may have or not have, and whether this one does."""
        return {
            "value": self._report.state == State.SUCCESS or bool(self._unreadable),
            "progress": self._report.info is not None,
            "traceback": self._report.failure is not None,
        }

    def value(self) -> SafeString | str:
        """What a task returned that succeeded, or why nothing can be shown."""
        if self._unreadable:
            return f"It cannot be read here: {printable(self._unreadable)}"
        return _block(_formatted(self._report.value))

    def progress(self) -> SafeString | str:
        """The last progress report."""
        return _block(_formatted(self._report.info))

    def traceback(self) -> SafeString | str:
        """How the task failed, or the last attempt of it."""
        failure = self._report.failure
        if failure is None:
            return ""
        return _block(failure.traceback or f"{failure.type_name}: {failure.message}")

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


def _formatted(value: object) -> str:
    try:
        return pprint.pformat(value, width=_WIDTH, sort_dicts=False)
    except ValueError as exc:  # an integer of more than 4300 digits
        return f"<{type(value).__name__} that cannot be shown: {exc}>"


def _block(text: str) -> SafeString:
    text = text.encode(errors="backslashreplace").decode()  # no page holds surrogates
    if len(text) > _LONGEST:
        left = len(text) - _LONGEST
        half = _LONGEST // 2
        text = f"{text[:half]}\n\n… {left:,} characters are left out …\n\n{text[-half:]}"
    return format_html('<pre class="upshot-text">{}</pre>', text)
