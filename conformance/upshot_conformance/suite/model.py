"""The model: what a backend that keeps the contract holds, as a dict.

It follows one client after the other, never two at once. Each answer of the backend is compared
with the model's, and a difference is blamed on one clause.
"""

from __future__ import annotations

from typing import Final, Literal

from upshot.record import Record
from upshot.states import State

__all__ = ["Absence", "Model"]

Absence = Literal["unknown", "forgotten", "expired"]
"""Why an id has no record."""

_ABSENT: Final[dict[Absence, str]] = {"unknown": "ID-1", "forgotten": "RL-2", "expired": "EX-1"}
"""What is broken where such an id shows a record."""

_ANEW: Final[dict[Absence, str]] = {"unknown": "ST-8", "forgotten": "RL-2", "expired": "EX-4"}
"""What is broken where such an id does not take a record, or loses it at once."""


class Model:
    """The records of a namespace in which one thing happens at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, Record] = {}
        self._absent: dict[str, Absence] = {}
        self._replaced: dict[str, list[Record]] = {}
        self._refused: dict[str, list[tuple[Record, str]]] = {}
        self._suspects: dict[str, str] = {}

    def get(self, task_id: str) -> Record | None:
        """Return the record that every read must return now; None for none."""
        return self._kept.get(task_id)

    def live(self) -> dict[str, Record]:
        """Return all records, by their ids."""
        return dict(self._kept)

    def applies(self, record: Record) -> bool:
        """Tell whether `record` would be applied now."""
        kept = self._kept.get(record.task_id)
        return kept is None or kept.barrier <= record.rank

    def store(self, record: Record) -> tuple[bool, str]:
        """Store as a backend must; return whether it applied, and the clause that says so."""
        task_id = record.task_id
        kept = self._kept.get(task_id)
        anew = _ANEW[self._absent.get(task_id, "unknown")]
        clause_id = _rule(kept, record) if kept else anew
        applied = self.applies(record)
        if applied:
            if kept is not None:
                self._replaced.setdefault(task_id, []).append(kept)
            self._kept[task_id] = record
            self._suspects[task_id] = "ST-8" if kept else anew
        else:
            self._refused.setdefault(task_id, []).append((record, clause_id))
        return applied, clause_id

    def remove(self, task_id: str, why: Absence) -> None:
        """Let an id have no record; fine if it has none."""
        if task_id in self._kept:
            self._replaced.setdefault(task_id, []).append(self._kept.pop(task_id))
        self._absent[task_id] = why

    def suspect(self, task_id: str, clause_id: str) -> None:
        """Note what just happened: should the record be gone, it broke that clause.

        Until something else is noted, it is ST-8: a client reads what it wrote.
        """
        self._suspects[task_id] = clause_id

    def blame(self, task_id: str, seen: Record | None) -> str:
        """Return the clause that is broken where `seen`, which is not the model's, was read."""
        kept = self._kept.get(task_id)
        refused = [clause for record, clause in self._refused.get(task_id, []) if record == seen]
        if seen is not None and seen.task_id != task_id:
            return "ID-2"
        if kept is None:
            return _ABSENT[self._absent.get(task_id, "unknown")]
        if refused:
            return refused[-1]
        if seen is None:
            return self._suspects[task_id]
        if seen in self._replaced.get(task_id, []):
            return "ST-8"
        return "ST-1"


def _rule(kept: Record, record: Record) -> str:
    """Return the clause that decides whether `record` may follow `kept`."""
    if not kept.is_terminal:
        return "ST-5"
    if not record.is_terminal:
        return "ST-2"
    return "ST-6" if State.REVOKED in (kept.state, record.state) else "ST-3"
