"""Why a target is missed: what a profile of the path shows, and why the rest cannot be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["REASONS", "Reason", "reason_for"]


@dataclass(frozen=True)
class Reason:
    """What is known of some targets, whether or not a run misses them.

    Attributes:
        services: where it holds.
        figures: what it explains, by the beginnings of their names.
        text: where the time or the memory goes, and what having it would cost.
    """

    services: tuple[str, ...]
    figures: tuple[str, ...]
    text: str


REASONS: Final[tuple[Reason, ...]] = ()


def reason_for(service: str, figure: str) -> str:
    """Return why a figure is not where it is aimed at; "" if nobody has found out."""
    texts = (
        each.text
        for each in REASONS
        if service in each.services and figure.startswith(each.figures)
    )
    return next(texts, "")
