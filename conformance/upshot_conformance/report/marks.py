"""How standings and verdicts are shown: a mark that needs no colour, and a word or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Verdict

__all__ = ["MARKS", "VERDICT_MARKS", "Mark"]


class Mark(NamedTuple):
    """How one standing looks.

    Attributes:
        sign: one character.
        short: what stands in a cell beside it.
        meaning: what it says, for the legend.
        tone: the class of its colours in `page.css`.
    """

    sign: str
    short: str
    meaning: str
    tone: str


MARKS: Final[Mapping[Standing, Mark]] = {
    Standing.PASSED: Mark("✓", "pass", "tested, and kept", "good"),
    Standing.REFUSED: Mark(
        "⊘", "refused", "not offered, and refused as it must be: tested", "fine"
    ),
    Standing.ABSENT: Mark("–", "n/a", "there is nothing of the kind on this service", "calm"),  # noqa: RUF001 - a dash is shown, not typed
    Standing.UNAVAILABLE: Mark("?", "untold", "nobody could look: not proven", "warn"),
    Standing.NOT_RUN: Mark("○", "not run", "not tested in this run: not proven", "blank"),
    Standing.PROVISIONAL: Mark("~", "early", "broken, and not yet binding", "warn"),
    Standing.WAIVED: Mark("!", "waived", "broken, and known to be", "warn"),
    Standing.FAILED: Mark("✗", "FAILED", "broken", "bad"),
}
"""The marks of standings, best first."""

VERDICT_MARKS: Final[Mapping[Verdict, Mark]] = {
    Verdict.CONFORMANT: Mark("✓", "conformant", "every clause that applies is kept", "good"),
    Verdict.PARTIAL: Mark("!", "partial", "something is waived or was not proven", "warn"),
    Verdict.NON_CONFORMANT: Mark("✗", "non-conformant", "a clause is broken", "bad"),
    Verdict.NOT_RUN: Mark("○", "not run", "no clause was proven", "blank"),
}
"""The marks of verdicts, best first."""
