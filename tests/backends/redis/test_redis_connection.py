"""The Redis connections: deadlines, errors, scripts, transports."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import Delivery, QueuedMessage, Settlement
from upshot.clock import Deadline
from upshot.errors import ServiceRejectedError, ServiceUnavailableError, UrlError
from upshot.retrying import call, translate
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.client import milliseconds, script
from upshot_backends.redis.connection import open_client
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]

_PASSWORD = "s3cret-w0rd"
_LATENESS = 4.0
"""Seconds that a call may exceed its timeout by on a busy machine; redis-py's own timeout is 5."""


def _delivery(queue: str = "q") -> Delivery:
    return Delivery(message_id="m", queue=queue, body=b"", deliveries=1, token="t")


def test_a_script_that_the_server_forgot_is_sent_again(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    backend.store([record("before")], 30.0)
    raw.script_flush()

    assert backend.store([record("after")], 30.0) == [True]
    assert raw.script_exists(script("pubsub", "guard", "store").sha) == [True]


def test_every_part_of_a_batch_survives_a_forgotten_script(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    raw.script_flush()
    batch = [record(str(i), bytes(3 * 2**20)) for i in range(4)]

    assert backend.store(batch, 10.0) == [True] * 4
    assert [len(body or b"") for body in backend.load([r.key for r in batch], 10.0)] == [
        3 * 2**20
    ] * 4


def test_killed_pooled_connections_are_replaced_after_one_error(
    backend: RedisBackend, raw: Any, record: RecordMaker
) -> None:
    threads = [
        threading.Thread(target=backend.store, args=([record(str(i))], 30.0)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raw.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises(redis.ConnectionError):
        backend.load(["a"], 30.0)
    assert backend.load(["a"], 30.0) == [None]


def test_a_killed_connection_is_not_noticed_above_the_retry_layer(
    server: RedisServer, raw: Any
) -> None:
    url = Url.parse(server.url)
    service = OpenService(lambda: RedisBackend(url), url=url, timeout=60.0)
    service.call(lambda backend, seconds: backend.load(["a"], seconds))
    raw.client_kill_filter(_type="normal", skipme=True)

    assert service.call(lambda backend, seconds: backend.load(["a"], seconds)) == [None]
    service.close()


Hook = Callable[[RedisBackend, RedisBroker, StoredRecord, float], object]

_HOOKS: dict[str, Hook] = {
    "store": lambda backend, _, record, seconds: backend.store([record], seconds),
    "load": lambda backend, _, record, seconds: backend.load([record.key], seconds),
    "delete": lambda backend, _, record, seconds: backend.delete([record.key], seconds),
    "scan": lambda backend, _, record, seconds: list(backend.scan("ns:", seconds)),
    "publish": lambda _, broker, record, seconds: broker.publish(
        [QueuedMessage(message_id="m", queue="q", body=b"")], [record], seconds
    ),
    "settle": lambda _, broker, record, seconds: broker.settle(
        [Settlement(delivery=_delivery())], seconds
    ),
    "beat": lambda _, broker, record, seconds: broker.beat(
        "w", ["q"], [_delivery()], lease=1.0, timeout=seconds
    ),
    "survey": lambda _, broker, record, seconds: broker.survey(["q"], seconds),
    "purge": lambda _, broker, record, seconds: broker.purge(["q"], seconds),
}


@pytest.fixture(scope="module")
def frozen() -> Iterator[tuple[RedisServer, RedisBackend, RedisBroker]]:
    """A paused server, with a connection in each pool that was made before the pause."""
    with RedisServer() as server:
        url = Url.parse(server.url)
        backend, broker = RedisBackend(url), RedisBroker(url, "ns")
        backend.load(["a"], 30.0)
        broker.survey(["q"], 30.0)
        server.pause()
        yield server, backend, broker
        server.resume()
        backend.close()
        broker.close()


@pytest.mark.parametrize("hook", _HOOKS)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "new"])
def test_a_frozen_server_ends_each_hook_in_time(
    frozen: tuple[RedisServer, RedisBackend, RedisBroker],
    record: RecordMaker,
    hook: str,
    pooled: bool,
) -> None:
    server, backend, broker = frozen
    url = Url.parse(server.url.removesuffix("/0") + "/1")  # /1: the set-up needs an answer
    if not pooled:
        backend, broker = RedisBackend(url), RedisBroker(url, "ns")
    began = clock.monotonic()

    with pytest.raises(redis.TimeoutError):
        _HOOKS[hook](backend, broker, record("a"), 0.3)
    assert 0.25 <= clock.monotonic() - began <= 0.3 + _LATENESS


def test_a_frozen_server_ends_the_sending_of_much_data_in_time(
    frozen: tuple[RedisServer, RedisBackend, RedisBroker], record: RecordMaker
) -> None:
    server, _, _ = frozen
    backend = RedisBackend(Url.parse(server.url))
    began = clock.monotonic()

    with pytest.raises(redis.TimeoutError):
        backend.store([record("a", bytes(32 * 2**20))], 0.5)
    assert clock.monotonic() - began <= 0.5 + _LATENESS


@pytest.fixture
def signals() -> Iterator[None]:
    """Signals for this thread, 50 in a second, with a handler that does nothing."""
    ended, target = threading.Event(), threading.get_ident()

    def send() -> None:
        while not ended.wait(0.02):
            signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    sender = threading.Thread(target=send)
    sender.start()
    yield
    ended.set()
    sender.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("size", [10, 32 * 2**20], ids=["receiving", "sending"])
@pytest.mark.usefixtures("signals")
def test_signals_do_not_make_a_frozen_server_any_less_late(
    fragile: RedisServer, record: RecordMaker, size: int
) -> None:
    """Each signal interrupts the system call, which the interpreter then begins again."""
    backend = RedisBackend(Url.parse(fragile.url))
    backend.store([record("before")], 30.0)
    fragile.pause()
    rescue = threading.Timer(8.0, fragile.resume)  # or it would never come back
    rescue.start()
    began = clock.monotonic()

    with pytest.raises(redis.TimeoutError):
        backend.store([record("a", bytes(size))], 0.5)
    assert clock.monotonic() - began <= 0.5 + _LATENESS
    rescue.cancel()
    rescue.join()
    fragile.resume()
    backend.close()


def test_a_frozen_server_ends_a_subscription_in_time(fragile: RedisServer, namespace: str) -> None:
    backend = RedisBackend(Url.parse(fragile.url))
    listener = backend.listen(0.3)
    fragile.pause()
    began = clock.monotonic()

    with pytest.raises(redis.TimeoutError):
        listener.subscribe([f"{namespace}:a"])
    assert clock.monotonic() - began <= 0.3 + _LATENESS
    listener.close()
    fragile.resume()
    backend.close()


def test_a_server_that_trickles_its_answer_is_late_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def trickle() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(1000)
                while not ended.wait(0.05):
                    try:
                        peer.sendall(b"*")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        port = listening.getsockname()[1]
        client = open_client(Url.parse(f"redis://127.0.0.1:{port}"))
        began = clock.monotonic()

        with pytest.raises(redis.TimeoutError):
            client.ask([("GET", "a")], 0.4)
        assert 0.35 <= clock.monotonic() - began <= 0.4 + _LATENESS
        ended.set()
        thread.join()


def test_a_restarted_server_is_found_again(fragile: RedisServer) -> None:
    url = Url.parse(fragile.url)
    backend = RedisBackend(url)
    backend.load(["a"], 30.0)
    fragile.kill()

    with pytest.raises(redis.ConnectionError) as refused:
        backend.load(["a"], 30.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    fragile.restart()
    assert backend.load(["a"], 30.0) == [None]
    backend.close()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("given", [f"right-name:wrong-{_PASSWORD}@", f":wrong-{_PASSWORD}@", ""])
def test_a_wrong_password_is_refused_at_once_and_never_shown(given: str, protocol: int) -> None:
    with RedisServer(arguments=["--requirepass", _PASSWORD]) as server:
        address = server.url.removeprefix("redis://")
        url = Url.parse(f"redis://{given}{address}?protocol={protocol}")
        backend = RedisBackend(url)
        began = clock.monotonic()

        with pytest.raises(ServiceRejectedError) as refused:
            call(
                lambda seconds: backend.load(["a"], seconds),
                errors=DRIVER_ERRORS,
                url=url,
                deadline=Deadline(60.0),
                limit=60.0,
            )
        assert clock.monotonic() - began < 30.0  # no try after the first
        shown = f"{refused.value} {refused.value!r} {refused.value.__cause__!r} {url} {backend!r}"
        assert _PASSWORD not in shown
        backend.close()


def test_the_right_password_opens(record: RecordMaker) -> None:
    with RedisServer(arguments=["--requirepass", _PASSWORD]) as server:
        address = server.url.removeprefix("redis://")
        backend = RedisBackend(Url.parse(f"redis://:{_PASSWORD}@{address}"))

        assert backend.store([record("a")], 30.0) == [True]
        backend.close()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://localhost/jobs", "database"),
        ("redis://localhost/0?sokcet_timeout=3", "sokcet_timeout"),
        ("redis://localhost/0?db=one", "db"),
        ("redis://localhost/0?upshot_lease=3", "upshot_lease"),
        (f"redis://:{_PASSWORD}@localhost/0?nonsense=1", "nonsense"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_connecting(url: str, word: str) -> None:
    parsed = Url.parse(url)

    with pytest.raises(UrlError, match=word) as refused:
        RedisBackend(parsed)
    assert _PASSWORD not in str(refused.value)
    with pytest.raises(UrlError, match=word):
        RedisBroker(parsed, "ns")


def test_driver_settings_that_would_break_us_have_no_effect(
    server: RedisServer, record: RecordMaker
) -> None:
    settings = "retry_on_timeout=yes&decode_responses=yes&encoding=utf-16&socket_timeout=0.001"
    backend = RedisBackend(Url.parse(f"{server.url}?{settings}"))

    backend.store([record("a", b"\xff\x00")], 30.0)
    assert backend.load([record("a").key], 30.0) == [b"\xff\x00"]
    backend.close()


def test_closing_ends_a_waiting_fetch_and_frees_every_descriptor(
    driver: Callable[[str], Any], fragile: RedisServer
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    broker = RedisBroker(Url.parse(fragile.url), "ns")
    assert broker.fetch(["p"], limit=1, wait=0.05, lease=5.0, worker="w") == []
    failed: list[Exception] = []

    def fetch(queue: str) -> None:
        try:
            broker.fetch([queue], limit=1, wait=100.0, lease=5.0, worker="w")
        except redis.ConnectionError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=fetch, args=(queue,)) for queue in "pq"]
    for thread in threads:
        thread.start()
    with driver(fragile.url) as admin:
        deadline = Deadline(30.0)
        while admin.info("clients")["blocked_clients"] < 2 and not deadline.expired:
            clock.sleep(0.01)
    began = clock.monotonic()
    broker.close()
    broker.close()
    for thread in threads:
        thread.join()

    assert clock.monotonic() - began < 30.0
    assert len(failed) == 2
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_closing_frees_what_waits_for_the_next_call(fragile: RedisServer) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    url = Url.parse(fragile.url)
    backend, broker = RedisBackend(url), RedisBroker(url, "ns")
    backend.load(["a"], 30.0)
    assert broker.fetch(["p"], limit=1, wait=1.0, lease=5.0, worker="w") == []
    assert len(os.listdir("/proc/self/fd")) == descriptors + 3

    broker.close()
    backend.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_expiry_is_rounded_up_and_never_zero() -> None:
    assert [milliseconds(s) for s in (None, 1e-9, 0.0011, 1.0, 2_678_400.0)] == [
        0,
        1,
        2,
        1000,
        2_678_400_000,
    ]


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_an_endless_expiry_is_taken(
    backend: RedisBackend, record: RecordMaker, seconds: float
) -> None:
    assert backend.store([record("a", expires=seconds)], 30.0) == [True]
