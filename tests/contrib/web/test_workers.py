"""Workers, queues and running tasks."""

from __future__ import annotations

from collections.abc import Callable

from upshot import App
from upshot.record import Record
from upshot.states import State
from upshot_conformance.servers import MemcachedServer, RabbitMQServer

from .asking import Answer, shown

Make = Callable[[str], App]


def rows(answer: Answer) -> list[list[str]]:
    """The cells of each row, of all tables."""
    assert answer.status == 200, answer.text
    return [
        [" ".join(cell.split()) for cell in row.split("\n") if cell.strip()]
        for row in answer.all("tr")
    ]


def beat(app: App, *names: str) -> None:
    for name in names:
        app.broker.current.beat(name, ["default"], [], lease=60.0, timeout=5.0)


def test_what_goes_on_is_shown(app: App) -> None:
    @app.task(name="jobs.later", queue="slow")
    def later() -> None: ...

    later.delay()
    beat(app, "host:7/1", "host:7/2")
    running = Record("it", State.STARTED, 2, "jobs.it", "default", "host:7/1", started_at=5.0)
    lost = running._replace(task_id="lost", worker="gone:8/1", started_at=6.0)
    app.results.store_many([running, lost])

    answer = shown(app, "/workers")

    assert answer.all("li") == [
        "1workers alive",
        "2tasks running",
        "1messages waiting",
        "0buried messages",
    ]
    assert rows(answer)[1:3] == [
        ["default", "0", "0", "0", "0", "2 processes"],
        ["slow", "1", "0", "0", "0", "nobody"],
    ]
    assert rows(answer)[4] == ["host:7", "default", "2", "1"]
    assert rows(answer)[6] == ["jobs.itit", "STARTED", "host:7/1", "2", "1970-01-01 00:00:05"]
    assert rows(answer)[7][2] == "gone:8/1 gone"
    assert 'href=".?queue=slow"' in answer.html


def test_where_nobody_works_it_says_what_to_do(app: App) -> None:
    answer = shown(app, "/workers")

    assert "No worker gives a sign of life" in answer.text
    assert "upshot -A jobs worker" in answer.text
    assert "No task is running" in answer.text


def test_rabbitmq_does_not_tell_who_works(
    rabbitmq_server: RabbitMQServer, memcached_server: MemcachedServer
) -> None:
    with App("jobs", broker=rabbitmq_server.url, backend=memcached_server.url) as app:
        answer = shown(app, "/workers")

    assert "does not tell which workers there are" in answer.text
    assert "cannot list its records: running tasks cannot be shown" in answer.text
    assert rabbitmq_server.url not in answer.html
    assert answer.all("li")[:2] == ["?workers alive", "?tasks running"]


def test_a_broker_inside_another_process_has_nothing_to_show(app_on: Make) -> None:
    with App("jobs", broker="memory://x", backend=str(app_on("sqlite").backend_url)) as app:
        answer = shown(app, "/workers")

    assert answer.status == 501
    assert "keeps messages inside the process" in answer.text


def test_more_running_tasks_than_fit_are_counted(app: App) -> None:
    app.results.store_many(
        Record(f"{n:03}", State.STARTED, name="jobs.it", started_at=float(n)) for n in range(103)
    )

    answer = shown(app, "/workers")

    assert len(answer.all("th", "c-task")) == 100
    assert "and 3 more that began later" in answer.text
