"""One layer of retries above every driver: deadlines, backoff, translated errors.

The drivers' own retries are switched off, so that a call's deadline is kept and a write is never
repeated behind our back. A call is repeated here only because every hook is idempotent or
guarded: storing the same record twice, loading, deleting, publishing under a message id.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from upshot import clock
from upshot.errors import (
    ServiceError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UpshotError,
)
from upshot.record import printable
from upshot.url import Url

__all__ = ["MIN_LOOK", "DriverErrors", "call", "hide_secrets", "jitter", "translate"]

T = TypeVar("T")

MIN_LOOK = 0.4
"""Seconds that one round trip is given even when the deadline has passed (`timeout=0`).

A call is back half a second after its deadline at the latest; what is left of that is for what lies
around the round trip."""

_SHORTEST_TRY = 0.05
"""Seconds; with less left, the error that is known says more than another try would."""
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverErrors:
    """Which of a driver's exceptions mean what.

    An exception is read as the nearest of its base classes that is listed says. So a subclass
    may be listed on one side and its base on the other: a wrong password is permanent although
    the driver calls it a connection error.

    Attributes:
        transient: trying again may help: connection lost, timed out, fail-over, out of memory.
        permanent: trying again will not help: rights, syntax, a full quota.
    """

    transient: tuple[type[Exception], ...] = ()
    permanent: tuple[type[Exception], ...] = ()


def translate(exc: Exception, errors: DriverErrors, url: Url) -> UpshotError | None:
    """Return the upshot error that `exc` means, or None if it is not the driver's.

    The message names the service by its masked URL; a password in the driver's own message is
    masked too.
    """
    if isinstance(exc, UpshotError):
        return exc
    # One line, for logs; a service's words are somebody else's.
    reason = printable(" ".join(url.scrub(str(exc)).split())) or type(exc).__name__
    for kind in type(exc).__mro__:
        if kind in errors.transient:
            return ServiceUnavailableError(f"{url} cannot be reached or refuses for now: {reason}")
        if kind in errors.permanent:
            return ServiceRejectedError(f"{url} refused: {reason}")
    return None


def hide_secrets(error: Exception, url: Url) -> None:
    """Take from the chain of an error what shows a secret of `url`: it would come into every log.

    A driver may quote what it was given. Where the cause, or anything it is chained to, does so, a
    ServiceError takes its place that has its name, its traceback and its text without the secret.
    """
    cause, context = error.__cause__, error.__context__
    if context is not None and _shows_secret(context, url):
        error.__context__ = None
    if cause is not None and _shows_secret(cause, url):
        kind = type(cause)
        shown = f"{kind.__module__}.{kind.__qualname__}: {url.scrub(str(cause))}"
        error.__cause__ = ServiceError(shown).with_traceback(cause.__traceback__)


def _shows_secret(exc: BaseException, url: Url) -> bool:
    """Tell whether an exception, or one that it is chained to, has a secret of `url` in it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            if any(url.scrub(text) != text for text in (str(each), repr(each), repr(vars(each)))):
                return True
            waiting += (each.__cause__, each.__context__)
    return False


def call(
    operation: Callable[[float], T],
    *,
    errors: DriverErrors,
    url: Url,
    deadline: clock.Deadline | None,
    limit: float,
    stopping: threading.Event | None = None,
) -> T:
    """Run `operation(seconds)` until it succeeds or the time is up.

    Args:
        operation: one round trip; told how many seconds it may take.
        errors: how to read the driver's exceptions.
        url: the service, for messages.
        deadline: the end of the caller's patience, None if it has none. `operation` is tried once
            in any case, for at least `MIN_LOOK` seconds; nothing is tried again once it has passed.
        limit: seconds after which this call gives up although the deadline is later.
        stopping: once it is set, nothing is tried again; None for never.

    Raises:
        ServiceUnavailableError: the last transient error, when the time was up.
        ServiceRejectedError: at once, for a permanent error.
    """
    left = limit if deadline is None else deadline.left(limit) or 0.0
    end, pause, seconds = clock.monotonic() + left, _FIRST_PAUSE, max(MIN_LOOK, left)
    while True:
        try:
            return operation(seconds)
        except Exception as exc:  # the boundary to a driver: what it raises is only known to it
            error = translate(exc, errors, url)
            if error is None:
                raise
            # Full jitter spreads clients that lost the same server at the same moment:
            # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
            rest = max(0.0, min(end - clock.monotonic(), jitter(0, pause)))
            stopping = stopping or threading.Event()
            is_final = not isinstance(error, ServiceUnavailableError) or stopping.wait(rest)
            seconds = end - clock.monotonic()
            if is_final or seconds < _SHORTEST_TRY:
                if error is exc:
                    raise
                raise error from exc
        pause = min(pause * 2, _LONGEST_PAUSE)


def jitter(low: float, high: float) -> float:
    """Return a random number from `low` to `high`, such as seconds to pause.

    The generator is not the one of the module `random`: a program that seeds that one gets its
    own numbers in its own order, however many threads of ours pause meanwhile.
    """
    return _RANDOM.uniform(low, high)
