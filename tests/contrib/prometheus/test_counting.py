"""What is counted in one process, in a registry of the test's own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from upshot import App, current_task
from upshot.errors import ConfigError, ResultTimeoutError, ServiceUnavailableError
from upshot_contrib.prometheus import QueueCollector, instrument

from .scraping import scraped, until


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(registry: CollectorRegistry) -> Iterator[App]:
    url = f"memory://{uuid.uuid4().hex}"
    with App(broker=url, backend=url, task_retry_backoff=0) as app:
        instrument(app, registry=registry)
        yield app


def test_a_task_is_counted_where_it_is_sent_run_and_read(
    app: App, registry: CollectorRegistry
) -> None:
    seen: list[float | None] = []

    @app.task(name="shop.add", queue="sums")
    def add(x: int, y: int) -> int:
        seen.append(scraped(registry)("upshot_tasks_running", task="shop.add"))
        return x + y

    with app.running():
        assert add.delay(1, 2).get(timeout=10) == 3
        assert add.map([(1, 1), (2, 2)]).get(timeout=10) == [2, 4]

    found = scraped(registry)
    assert found("upshot_tasks_sent_total", task="shop.add", queue="sums") == 3
    assert found("upshot_tasks_finished_total", task="shop.add", state="SUCCESS") == 3
    assert found("upshot_task_run_seconds_count", task="shop.add") == 3
    assert found("upshot_task_wait_seconds_count", task="shop.add") == 3
    assert found("upshot_task_wait_seconds_bucket", task="shop.add", le="+Inf") == 3
    assert 0 <= (found("upshot_task_wait_seconds_sum", task="shop.add") or 0) < 60
    assert found("upshot_tasks_running", task="shop.add") == 0
    assert max(each or 0 for each in seen) >= 1
    assert found("upshot_result_wait_seconds_count") == 2
    assert found("upshot_task_retries_total", task="shop.add") is None


def test_retries_failures_and_waits_in_vain_are_counted(
    app: App, registry: CollectorRegistry
) -> None:
    @app.task(name="shop.shaky", autoretry_for=(OSError,), max_retries=2)
    def shaky() -> None:
        if current_task().retries < 1:
            raise OSError("no")
        raise ValueError("never")

    async def awaited() -> None:
        with pytest.raises(ResultTimeoutError):
            await app.AsyncResult("nothing").aget(timeout=0)

    with app.running():
        shaky.delay().exception(timeout=10)
        asyncio.run(awaited())

    found = scraped(registry)
    assert found("upshot_task_retries_total", task="shop.shaky") == 1
    assert found("upshot_tasks_finished_total", task="shop.shaky", state="FAILURE") == 1
    assert found("upshot_task_run_seconds_count", task="shop.shaky") == 2
    assert found("upshot_result_wait_seconds_count") == 2


def test_the_wait_for_an_eta_is_not_counted(app: App, registry: CollectorRegistry) -> None:
    @app.task(name="shop.later")
    def later() -> None: ...

    with app.running():
        later.apply_async(countdown=1.5).get(timeout=20)

    found = scraped(registry)
    assert found("upshot_task_wait_seconds_count", task="shop.later") == 1
    due = found("upshot_task_wait_seconds_sum", task="shop.later") or 0
    assert due < (found("upshot_result_wait_seconds_sum") or 0) - 1.0


def test_what_is_refused_or_cut_short_has_an_end(app: App, registry: CollectorRegistry) -> None:
    release = threading.Event()

    @app.task(name="shop.endless", time_limit=0.1)
    def endless() -> None:
        release.wait(30)

    @app.task(name="shop.late")
    def late() -> None: ...

    handles = [app.send_task("made.up"), late.apply_async(expires=-1), endless.delay()]
    with app.running():
        for handle in handles:
            handle.exception(timeout=20)
        ended = {"task": "shop.endless", "state": "FAILURE"}
        assert until(lambda: scraped(registry)("upshot_tasks_finished_total", **ended) == 1)
        assert scraped(registry)("upshot_tasks_running", task="shop.endless") == 0
        release.set()

    found = scraped(registry)
    assert found("upshot_tasks_finished_total", task="unknown", state="FAILURE") == 1
    assert found("upshot_tasks_finished_total", task="shop.late", state="REVOKED") == 1
    assert found("upshot_tasks_finished_total", **ended) == 1
    assert found("upshot_task_run_seconds_count", task="shop.endless") == 1
    assert found("upshot_tasks_running", task="shop.endless") == 0
    assert found("upshot_tasks_running", task="shop.late") is None


def test_names_that_anybody_may_make_up_are_no_labels(
    app: App, registry: CollectorRegistry
) -> None:
    requests = [app.send_task(f"made.up{n}", queue=f"q{n}") for n in range(300)]

    assert len(requests) == 300
    found = scraped(registry)
    assert found.total("upshot_tasks_sent_total") == 300
    assert len(found.labels("upshot_tasks_sent_total")) == 401  # 200 of either, and "unknown"
    with app.running(queues=["q1"]):
        app.AsyncResult(requests[1].id).exception(timeout=20)
    assert scraped(registry).labels("upshot_tasks_finished_total") == {"unknown", "FAILURE"}


def test_a_call_that_sends_nothing_is_not_counted(app: App, registry: CollectorRegistry) -> None:
    @app.task(name="shop.once")
    def once() -> None: ...

    once.apply_async(key="k")
    once.apply_async(key="k")
    with App(broker="redis://127.0.0.1:1", operation_timeout=0.1) as away:  # nobody listens there
        instrument(away, registry=registry)
        with pytest.raises(ServiceUnavailableError):
            away.send_task("shop.once")

    assert scraped(registry).total("upshot_tasks_sent_total") == 1


def test_queues_are_asked_when_they_are_scraped(app: App, registry: CollectorRegistry) -> None:
    @app.task(name="shop.mail", queue="mail")
    def mail() -> None: ...

    registry.register(QueueCollector(app))
    mail.map([(), ()])
    mail.apply_async(countdown=600)
    app.send_task("shop.mail", queue="default")

    found = scraped(registry)
    assert found("upshot_broker_up") == 1
    assert found("upshot_queue_messages", queue="mail", status="ready") == 2
    assert found("upshot_queue_messages", queue="mail", status="delayed") == 1
    assert found("upshot_queue_messages", queue="default", status="ready") == 1
    assert found("upshot_queue_workers", queue="mail") == 0
    mail.delay()
    assert scraped(registry)("upshot_queue_messages", queue="mail", status="ready") == 3


def test_a_broker_that_does_not_answer_is_a_figure_too(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with App(broker="redis://:hunter2secret@127.0.0.1:1") as app:  # nobody listens there
        registry.register(QueueCollector(app, timeout=0.1))
        first, second = scraped(registry), scraped(registry)

    assert first("upshot_broker_up") == second("upshot_broker_up") == 0
    assert first.names == {"upshot_broker_up"}
    assert len(caplog.records) == 1
    assert "hunter2secret" not in caplog.text


def test_what_is_wrong_is_said_at_once(
    app: App, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"call instrument\(\) once"):
        instrument(app, registry=registry)
    taken = CollectorRegistry()
    Counter("upshot_tasks_sent", "Somebody else's.", registry=taken)
    with App(broker="memory://", backend="memory://") as other:
        with pytest.raises(ValueError, match="upshot_tasks_sent"):
            instrument(other, registry=taken)
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "gone"))
        with pytest.raises(ConfigError, match="no folder"):
            instrument(other)
        assert other.observers == []


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("from upshot_contrib.prometheus import instrument", 1),
        ("import upshot.cli; sys.argv = ['upshot', *'metrics -A x --port 0'.split()];", 2),
    ],
)
def test_what_is_missing_is_named(program: str, code: int) -> None:
    without = "import sys; sys.modules['prometheus_client'] = None; "
    program += " sys.exit(upshot.cli.main())" if code == 2 else ""
    done = subprocess.run(
        [sys.executable, "-c", without + program], capture_output=True, text=True, timeout=60
    )

    assert 'pip install "upshot[prometheus]"' in done.stderr
    assert done.returncode == code


def test_the_help_of_all_commands_needs_nothing_of_it() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None; sys.argv = ['upshot', '--help'];"
        "import upshot.cli; sys.exit(upshot.cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "metrics" in done.stdout
