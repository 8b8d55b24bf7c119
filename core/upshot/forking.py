"""What happens to open things after a fork: the child abandons the parent's, and opens its own.

Two processes on one socket would read each other's answers, and a lock that another thread held at
the moment of the fork stays locked in the child for ever. So the child neither uses nor closes what
the parent had open.
"""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

__all__ = ["abandon", "register"]


class _Forkable(Protocol):
    def after_fork(self) -> None:
        """Forget everything open and make new locks; runs in the child, which has one thread."""


_REGISTERED: Final[weakref.WeakSet[_Forkable]] = weakref.WeakSet()
_ABANDONED: Final[list[object]] = []


def register(forkable: _Forkable) -> None:
    """Call `forkable.after_fork()` in every child; does not keep it alive."""
    _REGISTERED.add(forkable)


def abandon(thing: object) -> None:
    """Keep the parent's `thing` alive unused: its finaliser could speak on a shared socket."""
    if thing is not None:
        _ABANDONED.append(thing)


def _after_fork_in_child() -> None:
    for forkable in list(_REGISTERED):
        forkable.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
