"""Where records lie that the command is to find, and one of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from upshot import App, clock
from upshot.client import ResultClient
from upshot.outcome import encode_value
from upshot.record import Record
from upshot.states import State
from upshot_conformance.records import CODECS, failure, success

from .services import SERVICES

Command: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

COMMAND: Final = (sys.executable, "-m", "upshot", "results")
DAY: Final = 86_400.0
WITH_SCAN: Final = [
    service for service in SERVICES if service.name in {"sqlite", "redis", "mongo", "postgresql"}
]


@dataclass
class Place:
    """Where records lie, for this process and for the command."""

    url: str
    namespace: str
    client: ResultClient

    @property
    def words(self) -> tuple[str, ...]:
        """What the command is told of it."""
        return "--url", self.url, "--namespace", self.namespace

    def fill(self) -> None:
        """Store a record of each kind."""
        now = clock.now()
        self.client.store_many(
            [
                success("good", {"total": 12})._replace(
                    name="shop.order",
                    queue="high",
                    worker="w1",
                    started_at=now - 65,
                    finished_at=now,
                ),
                failure("bad", _raised())._replace(
                    name="shop.pack", queue="low", finished_at=now - 3600
                ),
                success("old", 1)._replace(name="news.mail", finished_at=now - 8 * DAY),
                Record("gone", State.REVOKED, name="shop.pack", finished_at=now - 9 * DAY),
                Record(
                    "runs",
                    State.STARTED,
                    name="shop.order",
                    started_at=now - 30,
                    info=encode_value(CODECS, {"current": 3, "total": 4}),
                ),
            ]
        )

    def ids(self) -> set[str]:
        return {record.task_id for record in self.client.scan()}


def _raised() -> Exception:
    """Return an exception with a traceback."""
    try:
        raise ValueError("as asked")
    except ValueError as exc:
        return exc


def opened(url: str) -> Iterator[Place]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    with App(backend=url, namespace=namespace) as app:
        yield Place(url, namespace, app.results)


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)
