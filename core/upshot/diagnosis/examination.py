"""All that was found out about one service, or about an app."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from upshot.finding import Finding, Level

__all__ = ["Examination", "gravest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was looked at, and what was found.

    Attributes:
        subject: the service's masked URL, or the app's name.
        roles: what it is here: "broker", "result backend"; empty for an app.
        findings: in the order in which they were found.
        will: what it does here, a sentence each; empty if it could not be asked.
        will_not: likewise, what it does not do.
    """

    subject: str
    roles: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    will: tuple[str, ...] = ()
    will_not: tuple[str, ...] = ()

    @property
    def worst(self) -> Level:
        """The level of the gravest finding."""
        return gravest(finding.level for finding in self.findings)

    def to_data(self) -> dict[str, object]:
        """Return it as plain JSON data."""
        return {
            "subject": self.subject,
            "roles": list(self.roles),
            "worst": self.worst.value,
            "findings": [
                {
                    "level": finding.level.value,
                    "what": finding.what,
                    "why": finding.why or None,
                    "change": finding.change or None,
                    "capability": finding.capability or None,
                }
                for finding in self.findings
            ],
            "will": list(self.will),
            "will_not": list(self.will_not),
        }


def gravest(levels: Iterable[Level]) -> Level:
    """Return the worst of some levels; OK of none."""
    return max(levels, key=lambda level: level.gravity, default=Level.OK)
