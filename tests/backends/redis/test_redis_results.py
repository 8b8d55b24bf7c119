"""Results on Redis: what the server holds, the guard under races, refusals, hints."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.errors import ResultForgottenError, ServiceRejectedError, ServiceUnavailableError
from upshot.listening import Hint
from upshot.record import Payload, Record
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]


@pytest.fixture
def client(server: RedisServer, namespace: str) -> Iterator[ResultClient]:
    url = Url.parse(server.url)
    with ResultClient(lambda: RedisBackend(url), url=url, namespace=namespace) as opened:
        yield opened


def _finished(task_id: str, body: bytes = b"1") -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", body))


def _hear(listener_wait: Callable[[float], object], count: int) -> list[Hint]:
    """Collect `count` hints, for at most half a minute."""
    heard: list[Hint] = []
    deadline = Deadline(30.0)
    while len(heard) < count and not deadline.expired:
        hints = listener_wait(0.2)
        assert isinstance(hints, list)
        heard += hints
    return heard


# -- the guard ------------------------------------------------------------------------------


def test_of_eight_racing_terminal_writers_exactly_one_wins(
    server: RedisServer, record: RecordMaker
) -> None:
    backends = [RedisBackend(Url.parse(server.url)) for _ in range(8)]
    barrier = threading.Barrier(8)
    won: list[tuple[str, bytes]] = []

    def write(number: int) -> None:
        body = b"%d" % number
        for round_number in range(50):
            mine = record(str(round_number), body, terminal=True, rank=31)
            late = record(str(round_number), b"late", rank=20)
            barrier.wait()
            if backends[number].store([mine, late], 5.0)[0]:
                won.append((mine.key, body))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [record(str(round_number)).key for round_number in range(50)]
    stored = backends[0].load(keys, 5.0)

    assert Counter(key for key, _ in won) == dict.fromkeys(keys, 1)
    assert dict(won) == dict(zip(keys, stored, strict=True))
    for backend in backends:
        backend.close()


def test_a_refused_record_changes_nothing_not_even_the_expiry(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    first = record("a", b"first", terminal=True, expires=10.0)
    backend.store([first], 30.0)

    assert backend.store([record("a", b"second", rank=31, expires=None)], 30.0) == [False]
    assert backend.load([first.key], 30.0) == [b"first"]
    assert 9_000 < raw.pttl(first.key) <= 10_000


def test_an_applied_record_replaces_the_expiry_too(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    backend.store([record("a", expires=10.0), record("a", expires=None)], 30.0)

    assert raw.ttl(record("a").key) == -1


def test_an_expired_record_stands_in_nobodys_way(
    backend: RedisBackend, record: RecordMaker
) -> None:
    first = record("a", b"first", terminal=True, expires=0.02)
    backend.store([first], 30.0)
    deadline = Deadline(30.0)
    while backend.load([first.key], 30.0) != [None] and not deadline.expired:
        clock.sleep(0.005)

    assert backend.store([record("a", b"second", rank=1)], 30.0) == [True]


@pytest.mark.parametrize("foreign", ["text", "short", "list"])
def test_what_is_no_record_does_not_keep_a_result_from_being_stored(
    backend: RedisBackend, raw: Any, record: RecordMaker, foreign: str
) -> None:
    key = record("a").key
    if foreign == "list":
        raw.rpush(key, "item")
    else:
        raw.set(key, "x" if foreign == "short" else "some text of somebody else")

    assert backend.store([record("b"), record("a", b"mine"), record("c")], 30.0) == [True] * 3
    assert backend.load([key], 30.0) == [b"mine"]


def test_a_batch_of_many_bytes_is_stored_in_parts_and_in_order(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    raw.config_resetstat()
    batch = [record(str(i % 20), bytes(2**20), rank=20 + i // 20) for i in range(40)]

    assert backend.store(batch, 20.0) == [True] * 40
    assert backend.store(list(reversed(batch)), 20.0) == [True] * 20 + [False] * 20
    calls = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert 20 <= calls <= 22  # 80 MiB in parts of 4 MiB; the first may be sent twice


def test_a_batch_of_many_records_is_taken_whole(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    batch = [record(str(i)) for i in range(20_000)]
    keys = [item.key for item in batch]

    assert backend.store(batch, 20.0) == [True] * 20_000
    assert backend.load(keys, 20.0) == [b"body"] * 20_000
    backend.delete(keys, 20.0)
    assert not raw.exists(*keys)


# -- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "3")])
def test_a_server_that_cannot_write_now_may_be_tried_again(
    driver: Callable[[str], Any],
    fragile: RedisServer,
    record: RecordMaker,
    setting: str,
    value: str,
) -> None:
    url = Url.parse(fragile.url)
    backend = RedisBackend(url)
    backend.store([record("before")], 30.0)
    with driver(fragile.url) as admin:
        admin.config_set(setting, value)

        with pytest.raises(redis.ResponseError) as refused:
            backend.store([record("a"), record("b")], 30.0)
        admin.config_set(setting, "0")
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    assert backend.store([record("a"), record("b")], 30.0) == [True, True]
    backend.close()


def test_missing_rights_are_refused_for_good(
    driver: Callable[[str], Any], fragile: RedisServer, record: RecordMaker
) -> None:
    with driver(fragile.url) as admin:
        admin.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+get"])
    url = Url.parse(fragile.url.replace("redis://", "redis://reader:any@"))
    backend = RedisBackend(url)

    with pytest.raises(redis.ResponseError) as refused:
        backend.store([record("a")], 30.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceRejectedError)
    backend.close()


# -- keys -----------------------------------------------------------------------------------


def test_scan_takes_the_prefix_literally(backend: RedisBackend, raw: Any, namespace: str) -> None:
    inside = {f"{namespace}*[a]?\\^:{i}" for i in range(3000)}
    raw.mset(dict.fromkeys([*inside, f"{namespace}xa?\\^:0", f"{namespace}*[a]?\\^"], "x"))
    raw.set(f"{namespace}*[a]?\\^:".encode() + b"\xff", "not text")

    assert set(backend.scan(f"{namespace}*[a]?\\^:", 30.0)) == inside


def test_forgetting_leaves_no_key_and_no_channel(
    client: ResultClient, raw: Any, namespace: str
) -> None:
    waiting = threading.Thread(target=lambda: list(client.wait_many(["a", "b"], timeout=60.0)))
    waiting.start()
    deadline = Deadline(30.0)
    while len(raw.pubsub_channels(f"{namespace}*")) < 2 and not deadline.expired:
        clock.sleep(0.01)
    client.store_many([_finished("a"), _finished("b")])
    waiting.join()
    client.forget(["a", "b"])

    while raw.pubsub_channels(f"{namespace}*") and not deadline.expired:
        clock.sleep(0.01)
    assert raw.pubsub_channels(f"{namespace}*") == []
    assert raw.keys(f"{namespace}*") == []


def test_waiting_for_what_never_comes_creates_no_key(
    client: ResultClient, raw: Any, namespace: str
) -> None:
    with pytest.raises(TimeoutError):
        client.wait("unknown", timeout=0.05)

    assert raw.keys(f"{namespace}*") == []


# -- hints ----------------------------------------------------------------------------------


def test_ten_thousand_ids_are_heard_on_one_connection(client: ResultClient, raw: Any) -> None:
    ids = [f"task-{i}" for i in range(10_000)]
    before = int(raw.info("clients")["connected_clients"])
    ended: list[str] = []
    waiting = threading.Thread(
        target=lambda: ended.extend(task_id for task_id, _ in client.wait_many(ids, timeout=30.0))
    )
    waiting.start()
    deadline = Deadline(30.0)
    while int(raw.pubsub_numsub(f"{client.namespace}:task-9999@0")[0][1]) == 0:
        assert not deadline.expired
        clock.sleep(0.01)
    during = int(raw.info("clients")["connected_clients"])
    client.store_many([_finished(task_id) for task_id in reversed(ids)])
    waiting.join()

    assert sorted(ended) == sorted(ids)
    assert during - before <= 2  # one for commands, one that listens


def test_a_short_body_travels_in_the_hint_and_a_long_one_is_read(
    backend: RedisBackend, record: RecordMaker
) -> None:
    listener = backend.listen(30.0)
    short, long = record("short", bytes(8192), terminal=True), record("long", bytes(8193))
    listener.subscribe([short.key, long.key])
    backend.store([short, record("long", bytes(8193), terminal=True)], 30.0)

    assert _hear(listener.wait, 2) == [Hint(short.key, short.body), Hint(long.key, None)]
    listener.close()


def test_a_result_too_long_for_a_hint_still_ends_a_wait(client: ResultClient) -> None:
    waiting: list[Record] = []
    thread = threading.Thread(target=lambda: waiting.append(client.wait("a", timeout=60.0)))
    thread.start()
    client.store(_finished("a", bytes(1_000_000)))
    thread.join()

    assert waiting == [_finished("a", bytes(1_000_000))]


def test_unfinished_records_wake_nobody(backend: RedisBackend, record: RecordMaker) -> None:
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    backend.store([record("a"), record("a", b"end", terminal=True)], 30.0)

    assert _hear(listener.wait, 1) == [Hint(record("a").key, b"end")]
    listener.close()


def test_another_database_with_the_same_key_is_not_heard(
    server: RedisServer, backend: RedisBackend, record: RecordMaker
) -> None:
    other = RedisBackend(Url.parse(server.url.removesuffix("/0") + "/1"))
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    other.store([record("a", b"other", terminal=True)], 30.0)
    backend.store([record("a", b"mine", terminal=True)], 30.0)

    assert _hear(listener.wait, 1) == [Hint(record("a").key, b"mine")]
    listener.close()
    other.close()


def test_what_is_stored_while_a_subscription_is_made_is_kept_for_the_next_wait(
    backend: RedisBackend, record: RecordMaker
) -> None:
    listener = backend.listen(5.0)
    listener.subscribe([record("first").key])
    backend.store([record("first", terminal=True)], 30.0)
    listener.subscribe([record(str(i)).key for i in range(3000)])

    assert listener.wait(0.0) == [Hint(record("first").key, b"body")]
    listener.close()


def test_what_was_heard_for_an_earlier_wait_ends_no_later_one(
    backend: RedisBackend, record: RecordMaker
) -> None:
    listener, other = backend.listen(5.0), RedisBackend(backend.url)
    ended = record("task", terminal=True)
    listener.attend(ended.key, None)
    other.store([ended], 5.0)  # and it was found by a look
    listener.unsubscribe([ended.key])
    other.delete([ended.key], 5.0)

    listener.attend(ended.key, None)
    assert listener.wait(0.2) == []
    listener.close()
    other.close()


def test_what_arrives_together_with_a_confirmation_is_not_left_lying(
    fragile: RedisServer, record: RecordMaker
) -> None:
    backend = RedisBackend(Url.parse(fragile.url))
    backend.store([record("warm-up")], 30.0)
    listener = backend.listen(5.0)
    listener.subscribe([record("other").key])
    ended = record("a", b"end", terminal=True)
    subscribing = threading.Thread(target=listener.subscribe, args=([ended.key],))
    storing = threading.Thread(target=backend.store, args=([ended], 5.0))
    fragile.pause()
    for thread in (subscribing, storing):  # the server will read both commands at once
        thread.start()
        clock.sleep(0.1)
    fragile.resume()
    for thread in (subscribing, storing):
        thread.join()
    began = clock.monotonic()

    assert listener.wait(60.0) == [Hint(ended.key, b"end")]
    assert clock.monotonic() - began < 30.0
    listener.close()
    backend.close()


def test_deleting_tells_also_where_there_was_no_record(
    backend: RedisBackend, record: RecordMaker
) -> None:
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    backend.delete([record("a").key], 30.0)

    assert _hear(listener.wait, 1) == [Hint(record("a").key, b"")]
    listener.close()


def test_forgetting_ends_a_wait(client: ResultClient, raw: Any) -> None:
    ended: list[object] = []
    thread = threading.Thread(
        target=lambda: ended.extend(found for _, found in client.wait_many(["a"], timeout=60.0))
    )
    thread.start()
    deadline = Deadline(30.0)
    while not raw.pubsub_channels(f"{client.namespace}*") and not deadline.expired:
        clock.sleep(0.01)
    client.forget(["a"])
    thread.join()

    assert [type(found) for found in ended] == [ResultForgottenError]


def test_an_interrupt_ends_the_running_wait_or_the_next_one(backend: RedisBackend) -> None:
    listener = backend.listen(30.0)
    listener.interrupt()
    listener.interrupt()
    began = clock.monotonic()

    assert listener.wait(60.0) == []
    assert clock.monotonic() - began < 30.0

    timer = threading.Timer(0.1, listener.interrupt)
    timer.start()
    assert listener.wait(60.0) == []
    assert 0.05 < clock.monotonic() - began < 30.0
    timer.join()

    before = clock.monotonic()
    assert listener.wait(0.1) == []
    assert clock.monotonic() - before >= 0.09
    listener.close()
    listener.interrupt()
    listener.close()


def test_unsubscribing_from_what_was_never_subscribed_is_fine(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    listener.unsubscribe([record("b").key])
    listener.unsubscribe([])
    backend.store([record("a", terminal=True)], 30.0)

    assert _hear(listener.wait, 1) == [Hint(record("a").key, b"body")]
    listener.close()


def test_a_killed_listener_raises_so_that_the_hub_opens_another(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    listener = backend.listen(30.0)
    listener.subscribe([record("a").key])
    raw.client_kill_filter(_type="pubsub")

    with pytest.raises(redis.ConnectionError):
        listener.wait(60.0)
    listener.close()


def test_results_stored_around_a_killed_listener_end_the_wait(
    client: ResultClient, raw: Any
) -> None:
    ids = [f"task-{i}" for i in range(200)]
    ended: list[str] = []
    thread = threading.Thread(
        target=lambda: ended.extend(task_id for task_id, _ in client.wait_many(ids, timeout=20.0))
    )
    thread.start()
    for number, task_id in enumerate(ids):
        if number % 20 == 0:
            raw.client_kill_filter(_type="pubsub")
        client.store(_finished(task_id))
    thread.join()

    assert sorted(ended) == sorted(ids)
