"""One worker whose results are kept apart from its messages, and one caller; many at a time."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.conftest import Worker
from tests.endtoend.patience import PATIENCE
from upshot import App, clock

from .ledger import Ledger

JOBS: Final = Path(__file__).parent / "programs" / "jobs.py"
QUEUE: Final = "default"
_WORK: Final = 0.005  # seconds


@dataclass
class Bench:
    """A folder with `jobs.py`, an app, and the workers that were started; gone when it is left.

    Unlike the fixtures, several can be used at a time in threads of one test.

    Attributes:
        folder: its own.
        broker: where messages are.
        store: where results are.
        settings: of the app and the workers.
        store_of_workers: how they see `store`; "" if they see it as the caller does.
    """

    folder: Path
    broker: str
    store: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    store_of_workers: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(JOBS, self.folder)
        self.ledger = Ledger(self.folder / "ledger")
        self.workers: list[Worker] = []
        self.settings = {"namespace": f"test-{os.urandom(4).hex()}", **self.settings}
        self.app = App(
            broker=self.broker,
            backend=self.store,
            operation_timeout=PATIENCE / 2,  # a busy machine is no outage to the caller
            no_worker_warning=None,
            **self.settings,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self.app.close()
        for worker in self.workers:
            worker.kill()

    def start_worker(self, *options: str, prefix: Sequence[str] = ()) -> Worker:
        """Start one; it is killed in the end."""
        settings = {f"UPSHOT_{name.upper()}": str(value) for name, value in self.settings.items()}
        environment = {
            **settings,
            "UPSHOT_BROKER_URL": self.broker,
            "UPSHOT_RESULT_BACKEND": self.store_of_workers or self.store,
            "LEDGER": str(self.ledger.path),
        }
        worker = Worker(self.folder, *options, environment=environment, prefix=prefix)
        self.workers.append(worker)
        return worker

    def gate(self) -> Path:
        """Return the path of a file that is not there yet."""
        return self.folder / f"gate-{os.urandom(4).hex()}"

    def has_begun(self, ids: Sequence[str]) -> bool:
        """Tell whether the body of each of the tasks has begun."""
        return self.ledger.runs().keys() >= set(ids)

    def messages(self) -> int:
        """Return how many messages are in the queue or at workers; both of them are counted."""
        status = self.app.broker.call(lambda broker, seconds: broker.survey([QUEUE], seconds))[
            QUEUE
        ]
        return status.ready + status.delayed + (status.leased or 0)

    def comes_to_rest(self) -> None:
        """Wait until no message is left."""
        comes_to(self.messages, 0)

    def logged(self, text: str) -> list[str]:
        """Return the lines of every worker's log that have `text` in them."""
        lines = "".join(worker.output() for worker in self.workers).splitlines()
        return [line for line in lines if text in line]


def comes_to(look: Callable[[], object], goal: object) -> None:
    """Look until `goal` is seen, ten times a second: many do so at a time.

    Raises:
        AssertionError: it was not seen in `PATIENCE` seconds.
    """
    deadline = clock.Deadline(PATIENCE)
    while (seen := look()) != goal and not deadline.expired:
        clock.sleep(0.1)
    assert seen == goal, f"{seen!r} is not {goal!r}"


def watch(look: Callable[[], None], seconds: float) -> None:
    """Look every half second, for so many seconds."""
    deadline = clock.Deadline(seconds)
    while not deadline.expired:
        look()
        clock.sleep(min(0.5, deadline.left() or 0.0))


class Slowness(threading.Thread):
    """Measures how much slower this machine is than if it had nothing else to do.

    Twice a second it takes five milliseconds of work and the time that passes meanwhile; a thread
    that is alone needs no longer than that. Use it as a context manager.
    """

    def __init__(self) -> None:
        super().__init__(name="slowness")
        self._factors = [1.0]
        self._stopping = threading.Event()

    @property
    def factor(self) -> float:
        """What nine tenths of all work was slowed down by at most; 1 if by nothing."""
        ordered = sorted(self._factors)
        return max(1.0, ordered[len(ordered) * 9 // 10])

    def run(self) -> None:
        while not self._stopping.wait(0.5):
            began, worked = clock.monotonic(), time.thread_time()
            while time.thread_time() - worked < _WORK:
                pass
            self._factors.append((clock.monotonic() - began) / _WORK)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join()
