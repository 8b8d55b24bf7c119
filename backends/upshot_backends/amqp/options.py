"""The `upshot_…` parameters of a RabbitMQ URL; one URL may be the broker's and the backend's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AmqpOptions"]

_LEAST_IDLE: Final = 1.0
_LONGEST_IDLE: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpOptions:
    """What may be set.

    Attributes:
        reply_expires: seconds that the server keeps the queue with the results for a process
            that it has lost the connection to; 1 to 86400.
    """

    reply_expires: float = 60.0

    def __post_init__(self) -> None:
        if not _LEAST_IDLE <= self.reply_expires <= _LONGEST_IDLE:
            raise ValueError(
                f"upshot_reply_expires is {_LEAST_IDLE:g} to {_LONGEST_IDLE:g} seconds"
            )
