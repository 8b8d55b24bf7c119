"""Looking until something is so, for as long as a busy machine may need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upshot import clock

PATIENCE: Final = 60.0
"""Seconds that anything may take which is not measured."""


def comes_to(look: Callable[[], object], goal: object) -> None:
    """Look until `goal` is seen; fail with what was seen last, after `PATIENCE` seconds."""
    deadline = clock.Deadline(PATIENCE)
    while (seen := look()) != goal and not deadline.expired:
        clock.sleep(0.01)
    assert seen == goal, f"{seen!r} is not {goal!r}"
