"""What these tests share: for each service a Celery application, and a worker that runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.celery import jobs

SERVICES = ("redis", "postgresql", "mongodb", "sqlite")
ROOT = Path(__file__).resolve().parents[3]
CELERY = (sys.executable, "-m", "celery", "-A", "tests.contrib.celery.jobs:worker")
PATIENCE = 20.0  # seconds; on a busy machine a worker may take its time

# When a MongoDB client is closed while its monitor connects, pymongo leaves that socket to the
# garbage collector, and these tests close theirs at once.
QUIET = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@dataclass(frozen=True)
class Setting:
    """Where an application of these tests finds its services."""

    name: str
    broker: str
    backend: str
    queue: str
    errbacks: Path

    def app(self, **settings: Any) -> Any:
        """Return an app of its own, with connections of its own."""
        return jobs.make(
            settings.pop("broker", self.broker),
            settings.pop("backend", self.backend),
            queue=self.queue,
            **settings,
        )


@pytest.fixture(scope="session", params=SERVICES)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Each service in turn; the broker is Redis."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(f"celery-{name}")
    if name == "sqlite":
        url = f"sqlite:///{folder}/results.db"
    else:
        url = request.getfixturevalue(f"{name}_server").url
    return Setting(
        name,
        broker=request.getfixturevalue("redis_server").url,
        backend=f"upshot+{url}",
        queue=f"q-{uuid.uuid4().hex[:8]}",
        errbacks=folder / "errbacks",
    )


@pytest.fixture(scope="session")
def worker(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a worker for the setting's queue; yield its log."""
    log = tmp_path_factory.mktemp("worker") / "log"
    options = ("-c", "3", "-l", "INFO", "--without-gossip", "--without-mingle", "-n", setting.queue)
    with log.open("w") as output:
        process = subprocess.Popen(
            [*CELERY, "worker", *options],
            cwd=ROOT,
            env={
                **os.environ,
                "BROKER": setting.broker,
                "BACKEND": setting.backend,
                "QUEUE": setting.queue,
                "ERRBACKS": str(setting.errbacks),
                "C_FORCE_ROOT": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="session")
def session_app(setting: Setting, worker: Path) -> Iterator[Any]:
    app = setting.app()
    yield app
    app.backend.close()
    app.close()


@pytest.fixture
def app(session_app: Any) -> Any:
    """The client's side of the application, which a worker runs."""
    return session_app


@pytest.fixture
def open_app(setting: Setting) -> Iterator[Callable[..., Any]]:
    """Make apps with other settings; nothing runs their tasks, unless they are eager."""
    opened: list[Any] = []

    def opener(**settings: Any) -> Any:
        namespace = {"upshot_namespace": f"t-{uuid.uuid4().hex[:8]}"}
        options = namespace | settings.pop("result_backend_transport_options", {})
        opened.append(setting.app(result_backend_transport_options=options, **settings))
        return opened[-1]

    yield opener
    for each in opened:
        each.backend.close()
        each.close()


@pytest.fixture
def eager(open_app: Callable[..., Any]) -> Callable[..., Any]:
    """Make apps that run their tasks in this process, and store the results."""

    def opener(**settings: Any) -> Any:
        return open_app(task_always_eager=True, task_store_eager_result=True, **settings)

    return opener


def comes_true(question: Callable[[], object], within: float = PATIENCE) -> bool:
    """Ask until the answer is yes, or the time is up."""
    end = time.monotonic() + within
    while not question():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def new_id() -> str:
    return str(uuid.uuid4())
