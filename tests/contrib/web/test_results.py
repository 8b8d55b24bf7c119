"""The list: which results it shows, in which order, and what it says where there is no list."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from upshot import App, clock
from upshot.outcome import encode_value
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.records import CODECS, failure, revoked, success
from upshot_conformance.servers import MemcachedServer, RabbitMQServer
from upshot_contrib.web import looking
from upshot_contrib.web.queries import PAGE, Query

from .asking import Answer, shown
from .conftest import SERVICES

Make = Callable[[str], App]
HOUR = 3600.0


def record(task_id: str, name: str = "shop.order", ago: float = 1.0, **more: Any) -> Record:
    return success(task_id, 12)._replace(
        name=name, queue="default", finished_at=clock.now() - ago, **more
    )


def fill(app: App) -> None:
    now = clock.now()
    app.results.store_many(
        [
            record("good", ago=10),
            failure("bad", ValueError("no tea"))._replace(
                name="shop.pack", queue="slow", finished_at=now - 20
            ),
            record("old", "news.mail", 5 * HOUR),
            revoked("gone")._replace(name="shop.pack", finished_at=now - 30),
            Record("waiting", State.QUEUED, 1, "shop.order", "default", queued_at=now - 40),
            Record("own", "PACKING", 1, "shop.pack", "slow", started_at=now - 50),
            Record(
                "runs",
                State.STARTED,
                2,
                "shop.order",
                "default",
                "host:7/1",
                started_at=now - 60,
                info=encode_value(CODECS, {"current": 3, "total": 12}),
            ),
        ]
    )


ALL = ["good", "bad", "gone", "waiting", "own", "runs", "old"]


def listed(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    return [
        each.removeprefix("shop.order").removeprefix("shop.pack").removeprefix("news.mail")
        for each in answer.all("td", "c-task")
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_the_list_and_one_result_are_shown_whatever_the_service(service: str, app_on: Make) -> None:
    app = app_on(service)
    fill(app)

    answer, bad = shown(app), shown(app, "/result", {"id": "bad"})

    assert listed(answer) == ALL
    assert answer.all("span", "pill") == [
        *("SUCCESS", "FAILURE", "REVOKED", "QUEUED", "PACKING", "STARTED", "SUCCESS"),
    ]
    assert bad.all("pre", "text")[0] == "builtins.ValueError: no tea"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("state=FAILURE", ["bad"]),
        ("state=failure", ["bad"]),
        ("state=PACKING", ["own"]),
        ("state=unfinished", ["waiting", "own", "runs"]),
        ("q=PACK", ["bad", "gone", "own"]),
        ("q=oo", ["good"]),
        ("q=*.mail", ["old"]),
        ("q=shop.*&state=SUCCESS", ["good"]),
        ("queue=slow", ["bad", "own"]),
        ("since=1h", ALL[:-1]),
        ("since=1h&q=mail", []),
        ("page=2", []),
        ("state=NONE", []),
    ],
)
def test_filters_leave_out_what_they_say(app: App, query: str, ids: list[str]) -> None:
    fill(app)

    assert listed(shown(app, "/", query)) == ids


def tabs(answer: Answer) -> list[str]:
    return answer.all("nav", "tabs")[0].split()


def test_states_are_counted_whichever_is_shown(app: App) -> None:
    fill(app)
    counts = "All 7 Unfinished 3 QUEUED 1 STARTED 1 RETRY 0 SUCCESS 2 FAILURE 1 REVOKED 1 PACKING 1"

    assert tabs(shown(app)) == counts.split()
    assert tabs(shown(app, "/", "state=FAILURE")) == counts.split()
    assert tabs(shown(app, "/", "q=shop.order"))[:4] == ["All", "3", "Unfinished", "2"]


def test_a_line_says_what_came_out_and_how_far_it_is(app: App) -> None:
    fill(app)
    outcomes = dict(zip(ALL, shown(app).all("td", "c-outcome"), strict=True))

    assert outcomes["good"] == "12"
    assert outcomes["bad"] == "builtins.ValueError: no tea"
    assert outcomes["runs"] == "3 of 12"
    assert outcomes["waiting"] == ""


def test_there_are_pages(app: App) -> None:
    app.results.store_many(record(f"{n:03}", ago=float(n)) for n in range(PAGE + 3))

    first, second = shown(app, "/", "q=shop"), shown(app, "/", "q=shop&page=2")

    assert listed(first) == [f"{n:03}" for n in range(PAGE)]
    assert listed(second) == ["050", "051", "052"]
    assert 'rel="next" href="?q=shop&amp;page=2"' in first.html
    assert 'rel="prev" href="?q=shop"' in second.html
    assert "Page 2 of 2" in second.text


def test_no_link_leads_beyond_what_is_put_in_order(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "MAX_SORTED", 2 * PAGE)
    app.results.store_many(record(f"{n:03}", ago=float(n)) for n in range(2 * PAGE + 3))

    first, second = shown(app), shown(app, "/", "page=2")

    assert 'rel="next"' in first.html
    assert 'rel="next"' not in second.html
    assert "Older ones are not put in order: search for them." in second.text
    assert "not put in order" not in first.text


def test_rows_of_ids_that_look_alike_can_be_told_apart(app: App) -> None:
    app.results.store_many(record(task_id, ago=1.0) for task_id in ("a\u202e", "a\\u202e"))

    keys = re.findall(r'<tr data-key="([^"]*)"', shown(app).html)

    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("page=0", "there is no page '0'"),
        ("page=x", "there is no page 'x'"),
        ("page=%C2%B2", "there is no page"),
        ("page=999999999", "only the last 10000 records are put in order"),
        ("since=yesterday", "is no moment"),
    ],
)
def test_an_address_that_means_nothing_is_said_to(app: App, query: str, words: str) -> None:
    answer = shown(app, "/", query)

    assert answer.status == 400
    assert words in answer.text


def test_a_query_is_what_its_parameters_say() -> None:
    query = Query(state="FAILURE", text="a b&c", queue="ü", since="1h", page=3)

    assert query.parameters == "state=FAILURE&q=a+b%26c&queue=%C3%BC&since=1h&page=3"
    assert query.with_state("") == "q=a+b%26c&queue=%C3%BC&since=1h"
    assert Query().parameters == ""
    assert Query(page=2).is_everything
    assert not query.is_everything


def test_an_empty_list_says_what_to_do(app: App) -> None:
    nothing, nothing_found = shown(app), shown(app, "/", "q=x")

    assert "upshot -A jobs worker" in nothing.text
    assert "Nothing matches" in nothing_found.text
    assert "Show all results" in nothing_found.text


def test_what_cannot_be_read_is_counted(app: App) -> None:
    app.results.store(record("good"))
    bad = app.results.encode(record("bad"))._replace(body=b"rubbish")
    app.results.store_encoded([bad])

    answer, one = shown(app), shown(app, "/result", {"id": "bad"})

    assert listed(answer) == ["good"]
    assert "1 more cannot be read" in answer.text
    assert "A record that cannot be read" in one.text
    assert "not a record" in one.text


def test_a_large_value_is_not_decoded_for_a_line(app: App) -> None:
    app.results.store(success("large", "x" * 100_000))
    app.results.store(success("cut", "y" * 10_000))

    outcomes = shown(app).all("td", "c-outcome")

    assert sorted(each[:9] for each in outcomes) == ['"yyyyyyyy', "a value o"]
    assert max(map(len, outcomes)) == 200
    assert "a value of 98 KiB; open it to see it" in outcomes


def test_what_is_not_accepted_is_not_unpickled(app: App) -> None:
    evil = Payload("pickle", b"cos\nsystem\n(S'echo unpickled >&2'\ntR.")
    app.results.store(success("evil", 1)._replace(outcome=evil))

    line, page = shown(app).all("td", "c-outcome")[0], shown(app, "/result", {"id": "evil"})

    assert line.startswith("cannot be shown: content of type 'pickle' is not accepted here")
    assert "It cannot be shown here: content of type 'pickle'" in page.text


def test_passwords_in_urls_are_hidden(tmp_path: Any) -> None:
    backend = "redis://:s3cr3tword@127.0.0.1:1/0"
    with App(
        "jobs", broker=f"sqlite:///{tmp_path}/q.db", backend=backend, operation_timeout=0.5
    ) as app:
        answer = shown(app)

    assert answer.status == 503
    assert "The service does not answer" in answer.text
    assert "s3cr3tword" not in answer.html
    assert "redis://:***@127.0.0.1:1/0" in answer.text


def test_memcached_cannot_list_but_finds_an_id(memcached_server: MemcachedServer) -> None:
    with App(
        "jobs", broker="memory://x", backend=memcached_server.url, namespace=uuid.uuid4().hex
    ) as app:
        app.results.store(record("it"))
        listing, one = shown(app), shown(app, "/result", {"id": "it"})

    assert "cannot list its results, but finds each by its id" in listing.text
    assert 'action="result"' in listing.html
    assert one.all("h1") == ["shop.order"]


def test_results_that_only_their_sender_gets_are_said_to(rabbitmq_server: RabbitMQServer) -> None:
    with App("jobs", broker=rabbitmq_server.url, backend="rpc://") as app:
        listing, one = shown(app), shown(app, "/result", {"id": "it"})

    for answer in (listing, one):
        assert "only to the process that submitted the tasks" in answer.text
    assert one.status == 501


def test_the_namespace_and_the_app_are_named(app_on: Make) -> None:
    app = app_on("sqlite")

    assert f"namespace {app.results.namespace}" in shown(app).text
    assert "App jobs" in shown(app).text


def test_a_state_of_the_tasks_own_is_no_markup(app: App) -> None:
    name = f"<b>{os.urandom(2).hex()}</b>"
    app.results.store(Record("own", name, 1, name, started_at=1.0))

    answer = shown(app)

    assert name not in answer.html
    assert answer.all("span", "pill") == [name]
