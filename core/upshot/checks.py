"""What may be given to apps, tasks and calls, checked where it is given.

What a worker would have to refuse, or nobody would ever serve, is an error in the line that asks
for it, and not in a log somewhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from typing import cast

from upshot.errors import ConfigError, InvalidTaskIdError
from upshot.message import LONGEST, MAX_NAME, MAX_PRIORITY, is_name
from upshot.record import check_task_id, printable
from upshot.url import mask

__all__ = [
    "check_exceptions",
    "check_flag",
    "check_key",
    "check_limits",
    "check_name",
    "check_priority",
    "check_queues",
    "check_threads",
    "is_number",
    "shown",
]


def check_name(what: str, name: object) -> None:
    """Check the name of a task or queue: 1 to 255 printable characters.

    Raises:
        ConfigError: it is anything else.
    """
    if not is_name(name):
        told = repr(printable(name)) if isinstance(name, str) else shown(name)
        raise ConfigError(f"{what} is 1 to {MAX_NAME} printable characters, not {mask(told)}")


def check_key(key: object) -> None:
    """Check an idempotency key, which follows the rules of task ids.

    Raises:
        ConfigError: it is not text of 1 to 255 bytes without control characters or surrogates.
    """
    try:
        check_task_id(key)
    except InvalidTaskIdError as exc:
        raise ConfigError(str(exc).replace("a task id", "a key", 1)) from None


def check_limits(name: str, value: object) -> None:
    """Check a duration: more than 0 and at most `LONGEST` seconds, or None.

    Raises:
        ConfigError: it is anything else.
    """
    if value is not None and not (is_number(value) and 0 < cast("float", value) <= LONGEST):
        raise ConfigError(
            f"{name} is more than 0 seconds, at most {LONGEST:g}, or None; not {shown(value)}"
        )


def check_priority(value: object) -> None:
    """Check a priority: 0 to 9, or None.

    Raises:
        ConfigError: it is anything else.
    """
    if value is not None and not (type(value) is int and 0 <= value <= MAX_PRIORITY):
        raise ConfigError(f"priority is 0 to {MAX_PRIORITY}, larger first; not {shown(value)}")


def check_flag(name: str, value: object) -> None:
    """Check a choice between True and False.

    Raises:
        ConfigError: it is anything else: a text, say, which would count as True.
    """
    if type(value) is not bool:
        raise ConfigError(f"{name} is True or False, not {shown(value)}")


def check_exceptions(name: str, value: object) -> None:
    """Check a tuple, or a list or set, of exception classes.

    Raises:
        ConfigError: it is anything else.
    """
    given, several = shown(value), isinstance(value, tuple | list | Set)
    classes = cast("Iterable[object]", value) if several else ()
    if not several or not all(_is_exception(one) for one in classes):
        raise ConfigError(
            f"{name} is a tuple of exception classes, such as (ConnectionError,); not {given}"
        )


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def check_threads(value: object) -> None:
    """Check a number of threads.

    Raises:
        ConfigError: it is not 1 or more.
    """
    if not (type(value) is int and value >= 1):
        raise ConfigError(f"threads is 1 or more, not {shown(value)}")


def check_queues(queues: object) -> list[str]:
    """Return the names of queues, each once; none for None.

    Raises:
        ConfigError: one is no name of a queue, or it is one text, which is not several names.
    """
    if queues is None:
        return []
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise ConfigError(f"queues is a list of names, such as ['default']; not {shown(queues)}")
    names = list(cast("Iterable[str]", queues))
    for name in names:
        check_name("a queue's name", name)
    return list(dict.fromkeys(names))


def is_number(value: object) -> bool:
    """Tell whether something is a finite number; a bool is none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def shown(value: object) -> str:
    """Return the `repr()` of what was given, without the passwords of URLs.

    A URL may have been given where none belongs, and what an error says ends in a log.
    """
    return mask(repr(value))
