"""What is measured, one module for each kind of question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure
from benchmarks.groups import footprint, micro, tasks, wake, wire

__all__ = ["GROUPS", "Group"]


@dataclass(frozen=True)
class Group:
    """One kind of question.

    Attributes:
        title: above its table.
        run: takes a service, its URL, the contenders, and whether to be quick; returns figures.
        services: what it asks about.
    """

    title: str
    run: Callable[[str, str, Sequence[str], bool], list[Figure]]
    services: tuple[str, ...]


_ALL: Final = ("redis", "memcached", "mongodb", "sqlite", "postgresql", "rpc")

GROUPS: Final[dict[str, Group]] = {
    "micro": Group("Store, fetch, forget", micro.run, _ALL),
    "wake": Group("Waking up", wake.run, _ALL),
    "tasks": Group("Whole tasks", tasks.run, ("redis", "sqlite", "rpc")),
    "wire": Group("On the wire", wire.run, ("redis", "memcached", "mongodb", "postgresql", "rpc")),
    "footprint": Group("Imports and memory", footprint.run, ("redis",)),
}
"""By name."""
