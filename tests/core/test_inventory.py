"""Which records there are: filtered, in order, counted, removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from upshot import clock
from upshot.client import ResultClient
from upshot.errors import ConfigError
from upshot.inventory import MAX_SORTED, Filter, last_change, newest, prune, statistics
from upshot.record import Record
from upshot.states import State
from upshot.url import Url
from upshot_backends.memory.results import MemoryBackend
from upshot_conformance.records import failure, success


@pytest.fixture
def client() -> Iterator[ResultClient]:
    url = Url.parse(f"memory://{uuid.uuid4().hex}")
    with ResultClient(lambda: MemoryBackend(url), url=url) as opened:
        yield opened


def ended(task_id: str, at: float | None, **more: Any) -> Record:
    return success(task_id, task_id)._replace(finished_at=at, **more)


def store_rubbish(client: ResultClient, task_id: str) -> None:
    client.store_encoded([client.encode(success(task_id, 1))._replace(body=b"rubbish")])


def ids(client: ResultClient, accepted: Filter, **options: Any) -> list[str]:
    return [record.task_id for record in newest(client, accepted, **options).records]


def test_the_last_change_is_the_latest_moment_that_is_known() -> None:
    record = Record(task_id="it", state="STARTED", queued_at=1.0, started_at=2.0)

    assert last_change(record) == 2.0
    assert last_change(record._replace(finished_at=3.0)) == 3.0
    assert last_change(record._replace(started_at=None)) == 1.0
    assert last_change(record._replace(started_at=None, queued_at=None)) is None


@pytest.mark.parametrize(
    ("accepted", "found"),
    [
        (Filter(), "abcd"),
        (Filter(names=["shop.*"]), "ab"),
        (Filter(names=["shop.order", "*.mail"]), "ac"),
        (Filter(names=["Shop.*"]), ""),
        (Filter(states=frozenset({"STARTED"})), "d"),
        (Filter(unfinished=True), "d"),
        (Filter(queues=frozenset({"low", "other"})), "b"),
        (Filter(since=2.0), "bc"),
        (Filter(before=2.0), "a"),
        (Filter(since=2.0, before=3.0), "b"),
        (Filter(names=["shop.*"], since=2.0), "b"),
        (Filter(text="PACK"), "b"),
        (Filter(text="d"), "ad"),
        (Filter(text="shop", states=frozenset({"SUCCESS"}), before=2.0), "a"),
    ],
)
def test_a_filter_accepts_what_meets_every_condition(accepted: Filter, found: str) -> None:
    records = (
        ended("a", 1.0, name="shop.order", queue="high"),
        ended("b", 2.0, name="shop.pack", queue="low"),
        ended("c", 3.0, name="news.mail"),
        Record(task_id="d", state="STARTED"),
    )

    assert "".join(record.task_id for record in records if accepted.accepts(record)) == found


def test_pages_go_from_the_last_changed_to_those_without_a_moment(client: ResultClient) -> None:
    client.store_many(ended(f"{number:04}", float(number)) for number in range(2500))
    client.store(ended("undated", None))

    assert ids(client, Filter(), limit=2) == ["2499", "2498"]
    assert ids(client, Filter(), limit=2, page=2) == ["2497", "2496"]
    assert ids(client, Filter(), limit=1000, page=3)[-2:] == ["0000", "undated"]
    assert ids(client, Filter(), limit=1000, page=4) == []
    assert newest(client, Filter(before=100.0), limit=1).matched == 100


def test_what_cannot_be_read_is_counted_and_hides_nothing(client: ResultClient) -> None:
    client.store(ended("good", 1.0))
    store_rubbish(client, "bad")

    page = newest(client, Filter())

    assert ([record.task_id for record in page.records], page.unreadable) == (["good"], 1)


def test_states_are_counted_whichever_are_asked_for(client: ResultClient) -> None:
    client.store_many([ended("a", 1.0), ended("b", 9.0), Record(task_id="c", state="STARTED")])

    page = newest(client, Filter(unfinished=True))
    late = newest(client, Filter(states=frozenset({"STARTED"}), since=5.0))

    assert (page.matched, page.states) == (1, {"SUCCESS": 2, "STARTED": 1})
    assert (late.matched, late.states) == (0, {"SUCCESS": 1})


@pytest.mark.parametrize(("limit", "page"), [(0, 1), (1, 0), (MAX_SORTED, 2), (-1, -1)])
def test_what_is_not_put_in_order_is_refused(client: ResultClient, limit: int, page: int) -> None:
    with pytest.raises(ConfigError, match="put in order"):
        newest(client, Filter(), limit=limit, page=page)


def test_statistics_measure_what_is_stored(client: ResultClient) -> None:
    now = clock.now()
    soon, later = ended("a", now - client_expires(client) + 60), ended("b", now)
    client.store_many([soon, later, Record(task_id="c", state="STARTED", started_at=1.0)])
    store_rubbish(client, "bad")

    found = statistics(client, within=120)

    assert (found.count, found.unreadable, found.expiring) == (3, 1, 1)
    assert found.states == {"SUCCESS": 2, "STARTED": 1}
    assert (found.oldest, found.newest) == (1.0, now)
    assert found.bytes == sum(len(record.encode()) for record in client.scan())
    assert found.largest == len(soon.encode()) == len(later.encode())


def client_expires(client: ResultClient) -> float:
    assert client.expires is not None
    return client.expires


def test_nothing_has_statistics_too(client: ResultClient) -> None:
    found = statistics(client)

    assert (found.count, found.bytes, found.oldest, found.expiring) == (0, 0, None, 0)


def fill(client: ResultClient) -> None:
    client.store_many(
        [
            ended("old", 1.0),
            failure("failed", ValueError())._replace(finished_at=1.0),
            ended("new", 1000.0),
            Record(task_id="revoked", state=State.REVOKED, finished_at=1.0),
            Record(task_id="runs", state=State.STARTED, started_at=1.0),
        ]
    )


@pytest.mark.parametrize(
    ("accepted", "removed"),
    [
        (Filter(before=500.0), {"old", "failed"}),
        (Filter(), {"old", "failed", "new"}),
        (Filter(states=frozenset({"FAILURE"})), {"failed"}),
        (Filter(states=frozenset({"REVOKED", "STARTED"})), {"revoked", "runs"}),
    ],
)
def test_pruning_removes_outcomes_unless_states_are_named(
    client: ResultClient, accepted: Filter, removed: set[str]
) -> None:
    fill(client)
    before = {record.task_id for record in client.scan()}

    dry = prune(client, accepted, dry_run=True)
    assert {record.task_id for record in client.scan()} == before
    done = prune(client, accepted)

    assert (dry.removed, done.removed, done.looked_at) == (len(removed), len(removed), 5)
    assert {record.task_id for record in client.scan()} == before - removed


def test_pruning_goes_on_beyond_one_batch(client: ResultClient) -> None:
    client.store_many(ended(f"{number:04}", float(number)) for number in range(2500))

    assert prune(client, Filter(before=2400.0)).removed == 2400
    assert len(list(client.scan())) == 100


def test_a_record_that_changes_meanwhile_is_left(
    client: ResultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client)
    scan = client.scan

    def changing(unreadable: Any = None) -> Iterator[Record]:
        yield from scan(unreadable)
        client.store(success("runs", "just in time"))

    monkeypatch.setattr(client, "scan", changing)
    done = prune(client, Filter(states=frozenset({"STARTED"})))

    assert (done.removed, done.changed) == (0, 1)
    assert client.load("runs") is not None


def test_pruning_leaves_what_cannot_be_read(client: ResultClient) -> None:
    store_rubbish(client, "bad")

    done = prune(client, Filter())

    assert (done.removed, done.unreadable) == (0, 1)
