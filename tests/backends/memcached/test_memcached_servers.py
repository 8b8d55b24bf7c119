"""Several servers, servers that fail, and the connections to them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.errors import ServiceRejectedError, ServiceUnavailableError
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.memcached import layout
from upshot_backends.memcached.connection import Servers
from upshot_backends.memcached.driver import DRIVER_ERRORS, MemcacheError, MemcacheUnknownError
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.harnesses.memcached import MemcachedHarness
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]

_LATENESS = 10.0  # seconds by which a call may be late on a machine that does ten other things


def _means(error: BaseException, url: str) -> type[object]:
    assert isinstance(error, Exception)
    return type(translate(error, DRIVER_ERRORS, Url.parse(url)))


def _keys_of(url: str, server: MemcachedServer, namespace: str, count: int) -> list[str]:
    """Return `count` keys that belong to a server."""
    servers = Servers(Url.parse(url))
    found: list[str] = []
    number = 0
    while len(found) < count:
        key = f"{namespace}:{number}"
        if servers.server_of(key.encode()).name.endswith(f":{server.port}"):
            found.append(key)
        number += 1
    return found


# -- which server has a key -----------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_keys_are_shared_out_evenly_whatever_the_order_of_the_servers(count: int) -> None:
    hosts = [f"cache{number}.example:11211" for number in range(count)]
    keys = [b"upshot:%032x" % (number * 0x9E3779B97F4A7C15) for number in range(20_000)]
    forwards = Servers(Url.parse("memcached://" + ",".join(hosts)))
    backwards = Servers(Url.parse("memcached://" + ",".join(reversed(hosts))))

    placed = [forwards.server_of(key).name for key in keys]

    assert [backwards.server_of(key).name for key in keys] == placed
    for host in hosts:
        assert 0.8 < placed.count(host) * count / len(keys) < 1.2


def test_a_server_more_takes_its_share_and_moves_nothing_else() -> None:
    hosts = [f"cache{number}.example:11211" for number in range(5)]
    keys = [b"upshot:%d" % number for number in range(10_000)]
    four = Servers(Url.parse("memcached://" + ",".join(hosts[:4])))
    five = Servers(Url.parse("memcached://" + ",".join(hosts)))

    moved = [
        after for key in keys if (after := five.server_of(key).name) != four.server_of(key).name
    ]

    assert set(moved) == {hosts[4]}
    assert 0.15 < len(moved) / len(keys) < 0.25


def test_a_key_stays_where_it_is_from_one_version_to_the_next() -> None:
    servers = Servers(Url.parse("memcached://a.example,b.example:11212,c.example"))

    placed = [servers.server_of(b"upshot:%d" % number).name[0] for number in range(16)]

    assert "".join(placed) == "aacabbcbcabcbaac"


def test_a_record_and_its_parts_are_on_one_server(
    open_backend: BackendOpener,
    fragile: MemcachedServer,
    other: MemcachedServer,
    together: Callable[..., str],
    record: RecordMaker,
) -> None:
    url = together(fragile, other)
    backend = open_backend(url)
    names = [str(number) for number in range(6)]

    assert backend.store([record(name, bytes(3 * 2**20)) for name in names], 60.0) == [True] * 6
    looking = MemcachedHarness(Url.parse(url))
    held = looking.raw_objects("")
    assert len(held) == 6 * 5
    for name in names:
        parts = {each.partition("/")[0] for each in held if f"{record(name).key}/" in each}
        assert len(parts) == 1
    backend.delete([record(name).key for name in names], 60.0)
    assert looking.raw_objects("") == set()
    looking.close()


# -- a server that is down ------------------------------------------------------------------


def test_a_dead_server_is_an_error_for_its_keys_and_nothing_for_the_others(
    open_backend: BackendOpener,
    fragile: MemcachedServer,
    other: MemcachedServer,
    together: Callable[..., str],
    record: RecordMaker,
    namespace: str,
) -> None:
    url = together(fragile, other)
    backend = open_backend(url)
    lost = [record(key.partition(":")[2]) for key in _keys_of(url, fragile, namespace, 5)]
    safe = [record(key.partition(":")[2]) for key in _keys_of(url, other, namespace, 5)]
    backend.store([*lost, *safe], 10.0)
    fragile.kill()

    for _ in range(5):  # and it stays one: nobody answers in its place
        hooks: list[Callable[[], object]] = [
            lambda: backend.load([lost[0].key], 10.0),
            lambda: backend.store([lost[1]], 10.0),
            lambda: backend.delete([lost[2].key], 10.0),
        ]
        for hook in hooks:
            with pytest.raises(OSError, match=str(fragile.port)) as failed:
                hook()
            assert _means(failed.value, url) is ServiceUnavailableError
        assert backend.load([item.key for item in safe], 10.0) == [b"body"] * 5
        found, failure = backend.load([safe[0].key, lost[0].key], 10.0)
        assert found == b"body"
        assert isinstance(failure, ConnectionError)
        assert backend.store(safe, 10.0) == [True] * 5
    looking = MemcachedHarness(Url.parse(other.url))
    assert len(looking.raw_objects("")) == 5
    looking.close()
    fragile.restart()
    assert backend.load([lost[0].key, safe[0].key], 10.0) == [None, b"body"]


def test_a_batch_is_carried_out_on_the_servers_that_are_up(
    open_backend: BackendOpener,
    fragile: MemcachedServer,
    other: MemcachedServer,
    together: Callable[..., str],
    record: RecordMaker,
) -> None:
    url = together(fragile, other)
    backend = open_backend(url)
    batch = [record(str(number)) for number in range(100)]
    backend.store(batch, 10.0)
    fragile.kill()
    looking = MemcachedHarness(Url.parse(other.url))
    assert 20 < len(looking.raw_objects("")) < 80

    with pytest.raises(OSError, match=str(fragile.port)):
        backend.delete([item.key for item in batch], 10.0)
    assert looking.raw_objects("") == set()
    with pytest.raises(OSError, match=str(fragile.port)):
        backend.store(batch, 10.0)
    assert 20 < len(looking.raw_objects("")) < 80
    looking.close()


Hook = Callable[[MemcachedBackend, StoredRecord, float], object]

_HOOKS: dict[str, Hook] = {
    "store": lambda backend, record, seconds: backend.store([record], seconds),
    "load": lambda backend, record, seconds: backend.load([record.key], seconds),
    "delete": lambda backend, record, seconds: backend.delete([record.key], seconds),
}


@pytest.fixture(scope="module")
def frozen() -> Iterator[tuple[MemcachedServer, MemcachedBackend]]:
    """A paused server, with a connection that was made before the pause."""
    with MemcachedServer() as server:
        backend = MemcachedBackend(Url.parse(server.url))
        backend.load(["a"], 10.0)
        server.pause()
        yield server, backend
        server.resume()
        backend.close()


@pytest.mark.parametrize("hook", _HOOKS)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "new"])
@pytest.mark.parametrize("size", [10, 12 * 2**20], ids=["short", "long"])
def test_a_frozen_server_ends_each_hook_in_time(
    frozen: tuple[MemcachedServer, MemcachedBackend],
    open_backend: BackendOpener,
    record: RecordMaker,
    hook: str,
    pooled: bool,
    size: int,
) -> None:
    server, backend = frozen
    if not pooled:
        backend = open_backend(server.url)
    began = clock.monotonic()

    with pytest.raises(TimeoutError) as failed:
        _HOOKS[hook](backend, record("a", bytes(size)), 0.3)
    assert 0.25 <= clock.monotonic() - began <= 0.3 + _LATENESS
    assert _means(failed.value, server.url) is ServiceUnavailableError


def test_a_frozen_server_ends_the_sending_of_much_data_in_time(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker
) -> None:
    backend = open_backend(fragile.url)
    batch = [record(str(number), bytes(2**20 - 2000)) for number in range(40)]
    backend.load(["a"], 10.0)
    stop = threading.Event()

    def freeze() -> None:  # some time during the batch, which is too long for a few milliseconds
        stop.wait(0.02)
        fragile.pause()

    freezing = threading.Thread(target=freeze)
    began = clock.monotonic()
    freezing.start()

    failed = False
    while not failed:
        try:
            backend.store(batch, 0.5)
        except TimeoutError:
            failed = True
    freezing.join()
    assert clock.monotonic() - began <= 30.0
    fragile.resume()


@pytest.mark.parametrize("parameter", ["timeout=0.2", "connect_timeout=0.2&timeout=0.4"])
def test_the_driver_s_timeouts_shorten_a_call(
    frozen: tuple[MemcachedServer, MemcachedBackend], open_backend: BackendOpener, parameter: str
) -> None:
    server, _ = frozen
    backend = open_backend(f"{server.url}?{parameter}")
    began = clock.monotonic()

    with pytest.raises(TimeoutError):
        backend.load(["a"], 60.0)
    assert clock.monotonic() - began <= 0.4 + _LATENESS


def test_what_answers_late_is_not_taken_for_another_answer(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker
) -> None:
    backend = open_backend(fragile.url)
    batch = [record(str(number), b"%d" % number) for number in range(10)]
    backend.store(batch, 10.0)
    for number in range(5):
        fragile.pause()
        with pytest.raises(TimeoutError):
            backend.load([batch[number].key], 0.1)
        fragile.resume()  # and the answer comes, to nobody

        assert backend.load([batch[9 - number].key], 30.0) == [batch[9 - number].body]
        assert backend.store([record(f"new{number}")], 30.0) == [True]


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(
    server: MemcachedServer, record: RecordMaker
) -> None:
    """As what stands between may send one: it says once more that this was all."""
    with Proxy("127.0.0.1", server.port) as proxy:
        backend = MemcachedBackend(Url.parse(f"memcached://127.0.0.1:{proxy.port}"))
        stored = record("a")
        backend.store([stored], 10.0)
        proxy.translate = lambda data: data + b"END\r\n"
        assert backend.load([stored.key], 10.0) == [stored.body]
        proxy.translate = None

        assert backend.load([stored.key], 10.0) == [stored.body]
        backend.close()


def test_a_value_of_a_size_with_thousands_of_digits_is_no_answer_of_memcached(
    server: MemcachedServer,
) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        backend = MemcachedBackend(Url.parse(f"memcached://127.0.0.1:{proxy.port}"))
        backend.load(["a"], 10.0)
        proxy.translate = lambda data: b"VALUE a 0 %b\r\n" % (b"9" * 5000)

        with pytest.raises(MemcacheUnknownError):
            backend.load(["a"], 10.0)
        backend.close()


def test_a_restarted_server_is_found_again(
    open_backend: BackendOpener, fragile: MemcachedServer, record: RecordMaker
) -> None:
    backend = open_backend(fragile.url)
    threads = [
        threading.Thread(target=backend.store, args=([record(str(number))], 30.0))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fragile.restart()

    with pytest.raises(OSError, match=str(fragile.port)):  # however many connections there were
        backend.load(["a"], 10.0)
    assert backend.load(["a"], 30.0) == [None]
    assert backend.store([record("a")], 30.0) == [True]


# -- answers that are none ------------------------------------------------------------------


class _Impostor:
    """Answers each of the first commands with given bytes, and then closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"memcached://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> _Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                for answer in self._answers:
                    if peer.recv(1000):
                        peer.sendall(answer)


_VERSION = b"VERSION 1.6.18\r\n"
_ITEM = layout.whole(b"\r\nEND\r\n", barrier=1, moment=float("inf"))
_WHOLE = b"VALUE ns:a 0 %d\r\n%b\r\nEND\r\n" % (len(_ITEM), _ITEM)


def test_an_answer_that_is_cut_anywhere_is_no_answer(open_backend: BackendOpener) -> None:
    for length in range(len(_WHOLE)):
        with _Impostor(_VERSION, _WHOLE[:length]) as impostor:
            with pytest.raises(ConnectionError) as failed:
                open_backend(impostor.url).load(["ns:a"], 30.0)
            assert _means(failed.value, impostor.url) is ServiceUnavailableError
    with _Impostor(_VERSION, _WHOLE) as impostor:
        assert open_backend(impostor.url).load(["ns:a"], 30.0) == [b"\r\nEND\r\n"]


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ServiceRejectedError),
        (b"-ERR unknown command\r\n", ServiceRejectedError),
        (b"VALUE ns:a\r\nEND\r\n", ServiceRejectedError),
        (b"VALUE ns:a 0 many\r\nEND\r\n", ServiceRejectedError),
        (b"VALUE ns:a 0 -5\r\nEND\r\n", ServiceRejectedError),
        (b"ERROR\r\n", ServiceRejectedError),
        (b"CLIENT_ERROR line too long\r\n", ServiceRejectedError),
        (b"SERVER_ERROR out of memory writing get response\r\n", ServiceUnavailableError),
        (b"", ServiceUnavailableError),
    ],
)
@pytest.mark.parametrize("at", ["at once", "later"])
def test_what_is_not_memcached_is_said_to_be_none(
    open_backend: BackendOpener, answer: bytes, meaning: type[Exception], at: str
) -> None:
    answers = (_VERSION, answer) if at == "later" else (answer,)
    with _Impostor(*answers) as impostor:
        with pytest.raises((OSError, MemcacheError)) as failed:
            open_backend(impostor.url).load(["ns:a"], 30.0)
        assert _means(failed.value, impostor.url) is meaning


def test_a_server_that_trickles_its_answer_is_late_all_the_same(
    open_backend: BackendOpener,
) -> None:
    ended = threading.Event()

    def trickle(listening: socket.socket) -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(1000)
            while not ended.wait(0.02):
                try:
                    peer.sendall(b"V")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        backend = open_backend(f"memcached://127.0.0.1:{listening.getsockname()[1]}")
        began = clock.monotonic()

        with pytest.raises(TimeoutError):
            backend.load(["a"], 0.4)
        assert 0.35 <= clock.monotonic() - began <= 0.4 + _LATENESS
        ended.set()
        thread.join()
