"""Connections that servers end, again and again, while results are awaited and tasks are sent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
import pymysql
import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.endtoend.patience import PATIENCE
from tests.endtoend.services import SERVICES
from upshot import App, AsyncResult, clock
from upshot.url import Url
from upshot_conformance.concurrency import start
from upshot_conformance.records import success

from .conftest import Sized
from .scoreboard import Score

REST: Final = 0.2  # seconds between two blows: enough for a new connection, and for a wait on it


def strike_redis(server: Any) -> None:
    """End every connection, forget every script."""
    server.ask("SCRIPT", "FLUSH")
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def strike_postgresql(server: Any) -> None:
    """End every other session."""
    with psycopg.connect(server.url, autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def strike_mariadb(server: Any) -> None:
    """End every other session."""
    at = Url.parse(server.url)
    (host, port), *_ = at.hosts
    session = pymysql.connect(
        host=host, port=port or 0, user=at.username or "", password=at.password or ""
    )
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()")
        for (number,) in cursor.fetchall():
            with contextlib.suppress(pymysql.Error):  # it has left, or is the server's own
                cursor.execute(f"KILL CONNECTION {int(number)}")


def strike_mongo(server: Any) -> None:
    """Have the primary step down; as the only member it is elected again soon."""
    with MongoClient[Any](server.url) as client, contextlib.suppress(PyMongoError):
        client.admin.command("replSetStepDown", 1, secondaryCatchUpPeriodSecs=0, force=True)


def strike_rabbitmq(server: Any) -> None:
    """Close every connection."""
    server.control("close_all_connections", "struck")


STRIKES: Final[dict[str, Callable[[Any], None]]] = {
    "redis": strike_redis,
    "postgresql": strike_postgresql,
    "mariadb": strike_mariadb,
    "mongo": strike_mongo,
    "rpc": strike_rabbitmq,
}
STRUCK = [
    # RabbitMQ's own command takes seconds for a blow.
    pytest.param(each, id=each.name, marks=[pytest.mark.wide] if each.name == "rpc" else [])
    for each in SERVICES
    if each.name in STRIKES
]


@pytest.mark.timeout(300)
@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", STRUCK)
def test_nothing_is_lost_while_connections_are_ended(
    service: Any, score: Score, sized: Sized
) -> None:
    """Half of the results are stored during the storm, the others after it."""
    count, blows = sized(200, 20), sized(10, 3)
    with service.server() as server:
        with_results = "rpc://" if service.name == "rpc" else server.url
        app = App(
            broker=server.url if service.broker else "memory://failovers",
            backend=with_results,
            namespace=f"failovers-{os.urandom(4).hex()}",
            operation_timeout=PATIENCE / 2,
            no_worker_warning=None,
        )
        with app, ThreadPoolExecutor(count) as pool:
            handles: list[AsyncResult[Any]] = [
                app.send_task("jobs.echo", [n]) for n in range(count)
            ]
            waits = [pool.submit(handle.get, PATIENCE) for handle in handles]

            def storm() -> None:
                for _ in range(blows):
                    STRIKES[service.name](server)
                    clock.sleep(REST)

            striking = start(storm)
            while not striking.done():
                number = score.executed % (count // 2)
                began = clock.monotonic()
                app.results.store(
                    success(handles[number].id, number), reply_to=app.results.backend.reply_to
                )
                app.send_task("jobs.echo", [number])
                score.executed += 1
                score.remarks = [
                    f"slowest pair {max(clock.monotonic() - began, slowest(score)):.1f} s"
                ]
                clock.sleep(0.01)
            striking.result(PATIENCE)
            for number, handle in enumerate(handles):
                app.results.store(success(handle.id, number), reply_to=app.results.backend.reply_to)
            for number, wait in enumerate(waits):
                score.submitted += 1
                error = wait.exception(2 * PATIENCE)
                score.recorded += error is None and wait.result() == number
                if error is not None:
                    score.surprise(f"a wait ended in {error!r}")
    score.lost = score.submitted - score.recorded
    score.judge()


def slowest(score: Score) -> float:
    """Return the longest that was remarked so far, in seconds."""
    return float(score.remarks[0].split()[2]) if score.remarks else 0.0
