"""The states of a task, and the one number that orders its records.

A task moves PENDING → QUEUED → STARTED → (RETRY → STARTED →)* SUCCESS | FAILURE | REVOKED.
Any other upper-case word is a custom state: it is legal, not terminal, and ordered as progress.

A record is written with two integers. Its *rank* says how late in the task's life it is, its
*barrier* what a later write must reach. A service therefore needs one comparison to keep states
monotonic: a write applies iff nothing is stored, or `stored.barrier <= new.rank`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = [
    "MAX_ATTEMPT",
    "NEVER",
    "REVOKE_RANK",
    "TERMINAL",
    "State",
    "barrier_of",
    "is_terminal",
    "rank_of",
]


class State(StrEnum):
    """Where a task is. Compares equal to its name: `State.SUCCESS == "SUCCESS"`."""

    PENDING = "PENDING"
    """No record: waiting in a queue with `task_track_queued` off, forgotten, or never sent."""
    QUEUED = "QUEUED"
    """Sent, and recorded as such; no worker has started it."""
    STARTED = "STARTED"
    """A worker runs it now. `info` holds its progress."""
    RETRY = "RETRY"
    """An attempt failed or asked to be run again; the next one is queued."""
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


TERMINAL: Final[frozenset[str]] = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})
"""The states that nothing can follow."""

# One attempt spans 16 ranks. Progress and custom states share PROGRESS, so that each may
# follow the other; RETRY is the last thing an attempt says before the next attempt begins.
_SPAN: Final = 16
_START: Final = 4
_PROGRESS: Final = 5
_ORDER: Final[dict[str, int]] = {
    State.QUEUED: 1,
    State.STARTED: _START,
    State.RETRY: 12,
    State.SUCCESS: 15,
    State.FAILURE: 15,
}
_REVOKED: Final = State.REVOKED.value  # an attribute of an Enum is slow to get

MAX_ATTEMPT: Final = 2**26
"""No attempt is numbered higher; it keeps every rank inside a signed 32-bit integer."""

REVOKE_RANK: Final = _SPAN * (MAX_ATTEMPT + 1)
"""A revocation does not know which attempt runs, so it outranks them all."""

NEVER: Final = 2**31 - 1
"""The barrier of a terminal record: no rank reaches it."""


def is_terminal(state: str) -> bool:
    """Tell whether nothing can follow `state`: true for SUCCESS, FAILURE and REVOKED only."""
    return state in TERMINAL


def rank_of(state: str, attempt: int, *, progress: bool = False) -> int:
    """Return how late in the task's life a record of `state` in `attempt` (1 or more) is.

    `progress` tells a STARTED record that reports progress from the one that begins the attempt.
    """
    if state == _REVOKED:
        return REVOKE_RANK
    order = _ORDER.get(state, _PROGRESS)
    if progress and order == _START:
        order = _PROGRESS
    return attempt * _SPAN + order


def barrier_of(state: str, attempt: int, *, progress: bool = False) -> int:
    """Return the lowest rank that may replace a record of `state` in `attempt`.

    A start demands more than its own rank: of two workers that hold the same attempt of the
    same task (a message published twice), only the first store of STARTED applies, and the
    second worker learns from the answer that it must not run the task.
    """
    if state in TERMINAL:
        return NEVER
    rank = rank_of(state, attempt, progress=progress)
    return rank + 1 if _ORDER.get(state) == _START and not progress else rank
