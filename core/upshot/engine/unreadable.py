"""Whose a message is that cannot be read, as far as can be told.

Its waiter would wait for ever if nobody learned that it cannot be run. So the few fields that lead
to the waiter are taken from whatever is there, and nothing else is believed.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple, cast

from upshot.broker import Delivery
from upshot.errors import InvalidTaskIdError
from upshot.record import check_task_id

__all__ = ["Owner", "owner_of"]

_LOOKED_AT: Final = 64 * 1024  # bytes; a header of ours has a few hundred
_LONGEST: Final = 1024  # characters of a name that is believed
_TEXT: Final = {
    name: re.compile(rb'"%s"\s*:\s*("(?:[^"\\]|\\.){1,%d}")' % (name.encode(), _LONGEST))
    for name in ("task_id", "name", "reply_to")
}
_IGNORES: Final = re.compile(rb'"ignore_result"\s*:\s*true')


class Owner(NamedTuple):
    """The task that a message was about.

    Attributes:
        task_id: a legal one.
        name: the task's name, "" if unknown.
        reply_to: where results are sent, "" if nowhere.
        ignore_result: whether nobody waits.
    """

    task_id: str
    name: str
    reply_to: str
    ignore_result: bool


def owner_of(delivery: Delivery) -> Owner | None:
    """Return the task of a message that cannot be decoded; None if it names none.

    The id is looked for in the message, then in the id that the message itself has at the broker,
    which `upshot.sending.queued` makes from it.
    """
    body: Any = delivery.body  # a table may hold anything that somebody else put there
    start = body[:_LOOKED_AT] if isinstance(body, bytes) else b""
    number, slash, attempt = delivery.message_id.rpartition("/")
    candidates = (_text("task_id", start), number if slash and attempt.isdecimal() else "")
    task_id = next(filter(None, map(_legal, candidates)), None)
    if task_id is None:
        return None
    return Owner(
        task_id=task_id,
        name=_text("name", start),
        reply_to=_text("reply_to", start),
        ignore_result=_IGNORES.search(start) is not None,
    )


def _text(name: str, start: bytes) -> str:
    """Return the first text that stands under a name, "" if none does."""
    found = _TEXT[name].search(start)
    if found is None:
        return ""
    try:
        text: Any = json.loads(found[1])
        cast("str", text).encode()  # a lone surrogate goes into no record
    except ValueError:
        return ""
    return cast("str", text)


def _legal(task_id: str) -> str | None:
    try:
        return check_task_id(task_id)
    except InvalidTaskIdError:
        return None
