"""What running tasks takes, gathered by the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from upshot.broker import Broker
from upshot.client import ResultClient
from upshot.engine.clerk import Clerk
from upshot.execution import AroundTask
from upshot.observing import Observer
from upshot.sealing import Sealing
from upshot.serializers import Codecs
from upshot.service import OpenService
from upshot.settings import Settings
from upshot.spec import TaskSpec

__all__ = ["Host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Tasks, what goes on around each, who looks on, settings, and where messages and results are.

    The two services are the worker's own: a task that closes its app does not close them.
    """

    tasks: Mapping[str, TaskSpec]
    settings: Settings
    codecs: Codecs
    client: ResultClient
    broker: OpenService[Broker]
    around_task: AroundTask = nullcontext
    observers: Sequence[Observer] = ()
    clerk: Clerk = field(default_factory=Clerk)
    sealing: Sealing | None = None

    def close(self) -> None:
        """Close both services, and do nothing any more that was put off; idempotent."""
        self.clerk.close()
        self.client.close()
        self.broker.close()
