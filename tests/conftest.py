"""Fixtures for the project's own tests: private servers, and real workers as processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.beside import (
    pytest_collection_modifyitems,
    pytest_itemcollected,
    pytest_runtest_protocol,
)
from tests.faults.scoreboard import pytest_runtest_logreport, pytest_terminal_summary
from tests.secrecy import pytest_runtest_makereport
from upshot_conformance.servers import (
    MariaDBServer,
    MemcachedServer,
    MongoDBServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisClusterServer,
    RedisSentinelServer,
    RedisServer,
    new_password,
)

__all__ = [  # hooks, which pytest finds here
    "pytest_collection_modifyitems",
    "pytest_itemcollected",
    "pytest_runtest_logreport",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "pytest_terminal_summary",
]

# A test may be elsewhere when it is the first to need a server.
os.environ.setdefault("UPSHOT_SERVICES_DIR", str(Path(__file__).resolve().parents[1] / ".services"))

# How long an example takes to be drawn and to run says more about the machine than about the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell has its background jobs ignore Ctrl-C and SIGQUIT, and nohup has them ignore SIGHUP. All
# that is started here would inherit that, and workers heed it.
AS_IN_FRONT = ("env", "--default-signal=HUP,INT,QUIT")

TASKS = """
    import os
    import time

    from upshot import App, current_task

    app = App("jobs")


    class Broken(Exception):
        def __init__(self, code: int, why: str) -> None:
            super().__init__(code, why)
            self.code = code


    @app.task
    def add(x: int, y: int) -> int:
        return x + y


    @app.task
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds


    @app.task
    def fail(code: int) -> None:
        raise Broken(code, "as asked")


    @app.task(max_retries=1)
    def second_time() -> int:
        context = current_task()
        context.progress(context.attempt, 2)
        if not context.retries:
            context.retry(countdown=0)
        return context.attempt


    @app.task
    def die() -> None:
        os._exit(9)


    @app.task(time_limit=0.5)
    def endless() -> None:
        time.sleep(60)


    @app.task(soft_time_limit=0.3)
    def patient() -> str:
        time.sleep(60)
        return "never"


    @app.task
    def until_revoked() -> None:
        context = current_task()
        while not context.is_revoked():
            time.sleep(0.02)


    @app.task
    def fork_and_terminate() -> int:
        import signal

        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


    @app.task
    def mark(path: str, seconds: float = 0.0) -> int:
        with open(path, "a") as file:
            file.write("x")
        time.sleep(seconds)
        return os.getpid()
"""


class Worker:
    """A real `upshot worker` process, in a process group of its own.

    Args:
        folder: where `jobs.py` is.
        options: of the command.
        environment: what it has besides the present variables.
        prefix: a command that runs it.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.log = folder / f"worker-{os.urandom(4).hex()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *AS_IN_FRONT,
                    *prefix,
                    sys.executable,
                    "-m",
                    "upshot",
                    "-A",
                    "jobs",
                    "worker",
                    *options,
                ],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text()

    def children(self) -> list[int]:
        """Return the process ids of its task processes."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def kill(self) -> None:
        """SIGKILL the whole group, as a machine that loses power would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM it, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


# Private servers for the whole run, each started by the first test that asks for it, and paused
# or stopped by none. The absence of one is an error, never a skip.


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(password=new_password()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster_server() -> Iterator[RedisClusterServer]:
    """Three masters."""
    with RedisClusterServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_sentinel_server() -> Iterator[RedisSentinelServer]:
    """A master, a replica and three sentinels, which fail over only when told to."""
    with RedisSentinelServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[MongoDBServer]:
    """A replica set of one member."""
    with MongoDBServer(replica_set=True) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_standalone_server() -> Iterator[MongoDBServer]:
    """A single server, which cannot tell of changes."""
    with MongoDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """With its HTTP API, which the harness asks."""
    with RabbitMQServer(management=True) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("UPSHOT_CONFORMANCE_RABBITMQ_API", server.api_url)
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a real service that is broker and backend at once, empty for each test."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def project(tmp_path: Path, service_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `jobs.py`, and an environment that points at `service_url`."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(TASKS))
    monkeypatch.setenv("UPSHOT_BROKER_URL", service_url)
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", service_url)
    monkeypatch.setenv("UPSHOT_NAMESPACE", f"test-{os.urandom(4).hex()}")
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "2")
    return tmp_path


@pytest.fixture
def start_worker(project: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers in the project's folder; they are gone when the test is over."""
    started: list[Worker] = []

    def start(*options: str) -> Worker:
        started.append(Worker(project, *options))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
