"""How states look."""

from __future__ import annotations

from typing import Final

from upshot.states import State

__all__ = ["styled"]

_STYLES: Final[dict[str, str]] = {
    State.QUEUED: "blue",
    State.STARTED: "cyan",
    State.RETRY: "yellow",
    State.SUCCESS: "green",
    State.FAILURE: "bold red",
    State.REVOKED: "magenta",
}


def styled(state: str) -> tuple[str, str]:
    """Return a state and the name of its style; those of the tasks' own have none."""
    return state, _STYLES.get(state, "")
