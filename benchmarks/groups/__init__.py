"""What is measured, one module for each kind of question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.figures import Figure
from benchmarks.groups import micro, tasks, wake, wire

__all__ = ["GROUPS", "Group"]

Group = Callable[[str, str, Sequence[str], bool], list[Figure]]
"""Takes a service, its URL, the contenders, and whether to be quick; returns figures."""

GROUPS: Final[dict[str, tuple[str, Group]]] = {
    "micro": ("Store, fetch, forget", micro.run),
    "wake": ("Waking up", wake.run),
    "tasks": ("Whole tasks", tasks.run),
    "wire": ("On the wire", wire.run),
}
"""By name: a title, and what measures it."""
