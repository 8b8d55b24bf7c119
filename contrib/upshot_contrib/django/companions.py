"""What Django's own tasks keep beside the record of a task: its call, under an id of its own."""

from __future__ import annotations

from typing import Final

__all__ = ["CALL", "call_id"]

CALL: Final = "CALL"
"""The state of the record that holds a call; see `upshot_contrib.django.tasks.calls`."""


def call_id(task_id: str) -> str:
    """Return the id of the record that holds a task's call."""
    return f"{task_id}/call"
