"""The registry of clauses, and the mark that ties a test to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from upshot_conformance.contract import ROWS, Level, Row

__all__ = ["CLAUSES", "BrokenClauseError", "Clause", "clause"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One sentence that a backend keeps.

    Attributes:
        id: group and number, such as `"ST-2"`; never reused.
        level: `core` binds every backend, `extended` those that declare `gate`, `provisional`
            nobody yet: it is reported and never turns a run red.
        gate: the field of `Capabilities` that switches it on; "" for core clauses.
        text: what is demanded.
        why: what goes wrong for users where it is not kept.
        since: the version of the contract that it came with. For a backend written for an older
            version it is provisional.
    """

    id: str
    level: Level
    gate: str
    text: str
    why: str
    since: str

    @property
    def group(self) -> str:
        """The letters of the id: `"ST"`."""
        return self.id.partition("-")[0]

    def level_for(self, contract: str) -> Level:
        """Return the level that it has for a backend written for a version of the contract."""
        return "provisional" if _version(self.since) > _version(contract) else self.level


class BrokenClauseError(AssertionError):
    """A test that may find many things wrong has found a breach of this clause.

    It is the one that the report accuses, instead of all that the test is marked with.

    Args:
        clause_id: which clause is broken.
        message: what was seen, and what should have been.
    """

    def __init__(self, clause_id: str, message: str) -> None:
        super().__init__(message)
        self.clause_id = clause_id


def _clause(row: Row) -> Clause:
    return Clause(
        row.id, "extended" if row.gate else "core", row.gate, row.text, row.why, row.since
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


CLAUSES: Final[dict[str, Clause]] = {row.id: _clause(row) for row in ROWS}
"""Every clause by its id, in the order of the contract."""


def clause(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as a check of these clauses.

    Raises:
        LookupError: an id is not in the contract.
    """
    for clause_id in ids:
        if clause_id not in CLAUSES:
            raise LookupError(f"{clause_id!r} is not a clause of the contract")
    return pytest.mark.clause(*ids)
