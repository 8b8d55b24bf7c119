"""Records for pages that anybody may open: decoded and laid out in bounded time.

What `upshot results show` would not decode is not decoded here either, and neither is what takes
long. What a failure says may hold a URL, whose password is hidden, as there.
"""

from __future__ import annotations

import json
import pprint
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, cast

from upshot.app import App
from upshot.cli.printing import as_text, is_plain, safe
from upshot.cli.report import Report
from upshot.content_types import encryption_of, offloaded_of, plain_type
from upshot.errors import PayloadTooLargeError, UpshotError
from upshot.record import Payload, Record, printable

__all__ = [
    "bounded",
    "is_wrapped",
    "laid_out",
    "masked",
    "report_of",
    "size_of",
    "spelt",
    "unfolded",
    "without_repr",
]

_LARGEST: Final = 4 * 2**20  # bytes of a payload that is decoded at all: about a second's work
_PRETTY: Final = 200_000  # characters of plain data that is laid out in lines
_PRETTY_REPR: Final = 20_000  # characters of anything else: pprint takes a hundred times as long
_DEEPEST: Final = 20  # levels of what is: each indents all that is below it
_SHORT: Final = 72  # characters of a value that stays in one line


def bounded(app: App, record: Record) -> tuple[Record, tuple[str, ...]]:
    """Return a record without what is too much for a page, and what to say of that.

    Raises nothing: what cannot be unfolded stays as it is, for `report_of` to say why.
    """
    outcome, info = (unfolded(app, payload, _LARGEST) for payload in (record.outcome, record.info))
    left_out = tuple(
        f"the {what} is one {size_of(whole)}, too much for a page; upshot results show prints it"
        for what, whole, part in (
            ("outcome", record.outcome, outcome),
            ("last report", record.info, info),
        )
        if whole is not None and part is None
    )
    return record._replace(outcome=outcome, info=info), left_out


def unfolded(app: App, payload: Payload | None, most: int) -> Payload | None:
    """Return a payload as its serializer wrote it; None if that is longer than `most` bytes."""
    if payload is None or len(payload.body) > most:
        return None
    if not is_wrapped(payload):
        return payload
    try:
        plain = Payload(*app.codecs.unwrapped(*payload, at_most=most))
    except UpshotError as exc:  # who decodes it will say why it cannot be
        is_too_long = isinstance(exc, PayloadTooLargeError) and exc.limit >= most
        return None if is_too_long else payload
    return plain if len(plain.body) <= most else None


def is_wrapped(payload: Payload) -> bool:
    """Tell whether something compressed, or kept elsewhere, has to be unfolded first."""
    return encryption_of(payload.content_type)[0] != plain_type(payload.content_type)


def size_of(payload: Payload) -> str:
    """Return how large a payload is, to follow a noun: `of 12 KiB, compressed`."""
    if offloaded_of(encryption_of(payload.content_type)[0]) is not None:
        return "that is kept outside of its record"
    length = len(payload.body)
    words = f"{length} bytes" if length < 1024 else f"{length / 1024:,.0f} KiB"
    return f"of {words}, compressed" if is_wrapped(payload) else f"of {words}"


def report_of(app: App, record: Record) -> Report:
    """Decode a record; what cannot be decoded, whatever the reason, is said in `unreadable`."""
    try:
        return Report.of(app, record.task_id, record)
    except UpshotError as exc:  # the place where a large result lies is away, say
        why = str(exc)
    except Exception as exc:  # a pickle runs code of whoever wrote it
        why = f"decoding it raised {type(exc).__name__}"
    bare = Report.of(app, record.task_id, record._replace(info=None, outcome=None))
    return replace(bare, unreadable=why)


def masked(text: str) -> str:
    """Return what a failure says, line by line, without passwords and control characters."""
    return "\n".join(map(safe, text.split("\n")))


def spelt(text: str) -> str:
    """Return lines in which control characters, and marks that turn text, are spelt out."""
    return "\n".join(map(printable, text.split("\n")))


def laid_out(value: object, width: int) -> str:
    """Return a value in lines of `width`, or in one if it is long: that would take too long then.

    Never raises, whatever the value is.
    """
    try:
        text, plain = as_text(value), is_plain(value)
        if len(text) <= _SHORT or len(text) > (_PRETTY if plain else _PRETTY_REPR):
            return text
        if not plain:
            return pprint.pformat(value, width=width, sort_dicts=False)
        return text if _is_deep(value) else json.dumps(value, ensure_ascii=False, indent=2)
    except Exception as exc:  # the repr() of a class of the user's
        return without_repr(value, exc)


def without_repr(value: object, exc: Exception) -> str:
    """Return what stands for a value whose `repr()` raised."""
    return f"<{type(value).__name__} that cannot be shown: {type(exc).__name__}>"


def _is_deep(value: object) -> bool:
    """Tell whether plain data has more than `_DEEPEST` levels."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [each for above in level for each in _members(above)]
    return bool(level)


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("Mapping[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()
