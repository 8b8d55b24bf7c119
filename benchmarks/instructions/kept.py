"""The figures that are kept in the repository, and how new ones are held against them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

__all__ = ["BOUND", "FILE", "Kept", "complaints", "made_with"]

BOUND: Final = 0.10
"""How far a ratio may be from the one that is kept, as a part of that one."""

FILE: Final = Path(__file__).with_name("counts.json")
"""Where they are."""

_UPDATE: Final = "`make instructions UPDATE=1`"
_DRIVERS: Final = ("hiredis", "pymemcache", "redis", "SQLAlchemy")


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file holds.

    Attributes:
        made_with: the versions of what runs besides upshot's own code.
        reference: instructions of one call of the reference.
        ratios: for each path, its instructions per call divided by `reference`.
    """

    made_with: str
    reference: int
    ratios: Mapping[str, float]

    @classmethod
    def read(cls, file: Path = FILE) -> Kept:
        """Read them; of a file that is not there, none."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls("", 0, {})

    def write(self, file: Path = FILE) -> None:
        """Write them, a line for each path."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")


def made_with() -> str:
    """Return what `Kept.made_with` is here."""
    drivers = ", ".join(f"{name} {metadata.version(name)}" for name in _DRIVERS)
    return f"Python {platform.python_version()}, {drivers}"


def complaints(ratios: Mapping[str, float], kept: Kept, here: str) -> list[str]:
    """Return a sentence for each path whose ratio is not what is kept; none if all is well.

    Args:
        ratios: as counted now.
        kept: what the repository keeps.
        here: what they were counted with, as `made_with` says it.
    """
    found = [_complaint(name, ratio, kept.ratios.get(name)) for name, ratio in ratios.items()]
    found += [
        f"{name!r} is kept, but no longer counted: run {_UPDATE}"
        for name in kept.ratios
        if name not in ratios
    ]
    elsewhere = "" if here == kept.made_with else f" (kept with {kept.made_with}; this is {here})"
    return [each + elsewhere for each in found if each]


def _complaint(name: str, ratio: float, kept: float | None) -> str:
    if kept is None:
        return f"{name!r} is counted, but nothing is kept for it: run {_UPDATE}"
    change = ratio / kept - 1
    figures = f"{ratio:.2f} times the reference instead of {kept:.2f}"
    if change > BOUND:
        return (
            f"{name!r} takes {change:.0%} more instructions than are kept: {figures}; "
            f"mend it, or run {_UPDATE} and say why in the commit"
        )
    if change < -BOUND:
        return (
            f"{name!r} takes {-change:.0%} fewer instructions than are kept: {figures}; "
            f"run {_UPDATE}, so that nobody can lose that again unnoticed"
        )
    return ""
