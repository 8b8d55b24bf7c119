"""Every broker with every result backend: one real worker process, and all that comes home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from upshot import App, State
from upshot.errors import RemoteError
from upshot.spec import TaskSpec
from upshot.task import Task

from .patience import PATIENCE, comes_to
from .services import SERVICES, Service

BROKERS = [pytest.param(each, id=each.broker) for each in SERVICES if each.broker]
BACKENDS = [pytest.param(each, id=each.name) for each in SERVICES if each.name != "memory"]


@pytest.fixture(params=BROKERS)
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The broker of the worker that `start_worker` starts."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Service:
    """Where its results go."""
    service: Service = request.param
    return service


@pytest.fixture
def backend_url(backend: Service, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where that is."""
    return backend.find(request, tmp_path)


@pytest.fixture
def app(
    project: Path, service_url: str, backend_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[App]:
    """The caller's side, which knows the worker's tasks by name."""
    over_broker = backend_url == service_url and backend_url.startswith("amqp:")
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", "rpc://" if over_broker else backend_url)
    monkeypatch.setenv("UPSHOT_WORKER_LEASE", "60")  # no attempt may be lost to a busy machine
    with App() as app:
        yield app


def add(x: int, y: int) -> int:
    """The caller's side of a task that the worker has under the name `jobs.add`."""
    return x + y


def is_idle(app: App) -> bool:
    """Tell whether no message waits, and none is at a worker."""
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    return not (status["default"].ready or status["default"].leased)


@pytest.mark.timeout(300)
def test_everything_comes_home_and_nothing_stays(
    app: App,
    backend: Service,
    backend_url: str,
    start_worker: Callable[..., Any],
    project: Path,
) -> None:
    with closing(backend.harness(backend_url)) as harness:
        namespace = app.settings.namespace
        app.results.load("warm-up")  # what a database needs once, for everybody: its tables
        found = harness.raw_objects("")
        worker = start_worker("-c", "1")
        app.send_task("jobs.mark", [str(project / "mark")], ignore_result=True)
        comes_to(lambda: is_idle(app) and (project / "mark").exists(), True)
        # What a broker on the same service needs for a queue without messages.
        expected = found | harness.raw_objects(namespace)

        value = app.send_task("jobs.add", [2, 3])
        failure = app.send_task("jobs.fail", [7])
        mistake = app.send_task("jobs.add", [1, "one"])
        retried = app.send_task("jobs.second_time")
        batch = Task[..., int, int](TaskSpec(name="jobs.add", function=add), app).map(
            (n, n) for n in range(50)
        )

        assert value.get(timeout=PATIENCE) == 5
        assert value.get(timeout=PATIENCE) == 5
        broken = failure.exception(timeout=PATIENCE)
        assert isinstance(broken, RemoteError)
        assert broken.is_("jobs.Broken")
        assert "in fail" in (failure.traceback or "")
        with pytest.raises(TypeError, match="unsupported operand"):
            mistake.get(timeout=PATIENCE)
        assert retried.get(timeout=PATIENCE) == 2
        assert (retried.attempts, retried.info) == (2, {"current": 2, "total": 2})
        assert batch.get(timeout=PATIENCE) == [2 * n for n in range(50)]

        for handle in (value, failure, mistake, retried):
            handle.forget()
        batch.forget()
        assert {handle.state for handle in (value, *batch)} == {State.PENDING}
        assert worker.stop(PATIENCE) == 0, worker.output()
        assert is_idle(app)
        app.close()
        comes_to(lambda: harness.raw_objects("") - expected, set[str]())
