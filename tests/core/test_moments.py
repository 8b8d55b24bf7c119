"""Spans and moments as people write them on the command line."""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upshot.cli.results.moments import moment_of, seconds_of, short_span

NOW = datetime.fromisoformat("2026-06-15T12:00:00+00:00").timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        (" 2H ", 7200),
        ("0.5h", 1800),
    ],
)
def test_a_span_is_a_number_with_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "h", "2x", "2 h", "-1", "-2h", "1e3", "nan", "inf", "2hh", "٢h", "1" * 13, "h2"],
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time, such as 90s"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", "2026-06-15T10:00:00+00:00"),
        ("0", "2026-06-15T12:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T08:00", "2026-01-31T08:00:00+00:00"),
        ("2026-01-31 08:00:30.5", "2026-01-31T08:00:30.5+00:00"),
        ("2026-01-31T08:00Z", "2026-01-31T08:00:00+00:00"),
        ("2026-01-31T08:00+02:00", "2026-01-31T06:00:00+00:00"),
    ],
)
def test_a_moment_is_a_span_before_now_or_iso_8601(text: str, moment: str) -> None:
    assert moment_of(text, NOW) == datetime.fromisoformat(moment).timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "10:00", "2026-02-30T00:00Z"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        moment_of(text, NOW)


@pytest.mark.parametrize("text", ["999999999999w", "9999-12-31T23:00Z"])
def test_what_lies_in_no_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="in no calendar"):
        moment_of(text, NOW)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_a_number_or_a_value_error(text: str) -> None:
    for read in (seconds_of, partial(moment_of, now=NOW)):
        try:
            found = read(text)
        except ValueError:
            continue
        assert math.isfinite(found)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.056, "0.06 s"),
        (12.34, "12.3 s"),
        (250, "4m10s"),
        (7500, "2h05m"),
        (273_600, "3d4h"),
    ],
)
def test_a_span_is_short_to_read(seconds: float, text: str) -> None:
    assert short_span(seconds) == text
