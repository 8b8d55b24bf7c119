"""What a worker's process tells its supervisor, in memory that both have.

An exit code does not do: a task can end its process with any code it likes.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
from typing import Final, final

__all__ = ["Ending", "Signs"]

_LIMIT: Final = struct.Struct("d")
_BEATS: Final = struct.Struct("Q")
_BEATS_AT: Final = _LIMIT.size
_ENDING_AT: Final = _BEATS_AT + _BEATS.size  # one byte, as the next
_CONSUMES_AT: Final = _ENDING_AT + 1


class Ending(enum.IntEnum):
    """Why a process has ended, as far as it came to say so."""

    LOST = 0
    """It did not say: it was killed, or a task took it down."""
    DONE = 1
    """As it was told to; it left nothing unfinished."""
    CUT_SHORT = 2
    """A stop gave its running tasks back."""
    TIME_LIMIT = 3
    """A task passed its hard limit."""
    UNAVAILABLE = 4
    """In burst mode, its broker could not be reached; or none can be where its URL leads."""
    DAMAGED = 5
    """A task closed what the process needs."""

    @property
    def exit_code(self) -> int:
        """What the process ends with, for whoever looks at it from outside; see sysexits.h."""
        return {
            Ending.DONE: os.EX_OK,
            Ending.TIME_LIMIT: os.EX_SOFTWARE,
            Ending.UNAVAILABLE: os.EX_UNAVAILABLE,
        }.get(self, 1)


@final
class Signs:
    """A few bytes that outlive a fork; made by the supervisor, one for each process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _CONSUMES_AT + 1)

    @property
    def ending(self) -> Ending:
        """Why the process has ended."""
        return Ending(self._memory[_ENDING_AT])

    @ending.setter
    def ending(self, why: Ending) -> None:
        self._memory[_ENDING_AT] = why

    @property
    def limit(self) -> float | None:
        """When the soonest hard limit strikes, on the monotonic clock; None if there is none."""
        (moment,) = _LIMIT.unpack_from(self._memory)
        return moment or None

    @limit.setter
    def limit(self, moment: float | None) -> None:
        _LIMIT.pack_into(self._memory, 0, moment or 0.0)

    @property
    def beats(self) -> int:
        """How many signs of life it has given; 0 until it is ready to give any."""
        (count,) = _BEATS.unpack_from(self._memory, _BEATS_AT)
        return int(count)

    def beat(self) -> None:
        """Give a sign of life; for one thread of the process."""
        _BEATS.pack_into(self._memory, _BEATS_AT, self.beats + 1)

    @property
    def consumes(self) -> bool:
        """Whether its broker has answered it: it gets messages."""
        return bool(self._memory[_CONSUMES_AT])

    def consume(self) -> None:
        """Say that it gets messages."""
        self._memory[_CONSUMES_AT] = 1

    def close(self) -> None:
        """Give the memory back; only for the supervisor, once the process has gone."""
        self._memory.close()
