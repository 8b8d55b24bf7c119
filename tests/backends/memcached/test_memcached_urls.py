"""What a memcached URL may say, and every way to reach a server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from upshot.backend import StoredRecord
from upshot.errors import UrlError
from upshot.registry import backend_class
from upshot.url import Url
from upshot_backends.memcached.driver import Address, Options, addresses, read_options
from upshot_backends.memcached.results import MemcachedBackend
from upshot_conformance.servers import MemcachedServer

BackendOpener = Callable[..., MemcachedBackend]
RecordMaker = Callable[..., StoredRecord]

_PASSWORD = "s3cret-w0rd"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memcached://", [("localhost", 11211)]),
        ("memcached://h", [("h", 11211)]),
        ("memcached://H1:1,h2:2/", [("h1", 1), ("h2", 2)]),
        ("cache+memcached://h1:1;h2;h3/", [("h1", 1), ("h2", 11211), ("h3", 11211)]),
        ("memcached://[::1],[::1]:1", [("::1", 11211), ("::1", 1)]),
        ("memcached:///run/a%20b.sock", ["/run/a b.sock"]),
    ],
)
def test_a_url_names_servers(url: str, expected: list[Address]) -> None:
    assert addresses(Url.parse(url)) == expected


@pytest.mark.parametrize("scheme", ["memcached", "cache+memcached", "memcached@upshot"])
def test_both_schemes_are_this_backend(scheme: str) -> None:
    assert backend_class(Url.parse(f"{scheme}://h")) is MemcachedBackend


def test_parameters_are_those_of_the_driver() -> None:
    url = Url.parse("memcached://h?connect_timeout=0.5&timeout=2&max_pool_size=3")

    assert read_options(url) == Options(connect_timeout=0.5, timeout=2.0, max_pool_size=3)
    assert read_options(Url.parse("memcached://h")) == Options()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        (f"memcached://user:{_PASSWORD}@h", "no users and passwords"),
        (f"memcached://:{_PASSWORD}@h1,h2", "no users and passwords"),
        ("memcached://user@h", "no users and passwords"),
        (f"memcached://h1;memcached://u:{_PASSWORD}@h2", "h1"),
        ("memcached://h1;memcached://h2", "host1,host2"),
        ("memcached://h/0", "no path"),
        ("memcached://h1,h2/var/run/memcached.sock", "no path"),
        ("memcached://h,h:11211", "twice"),
        ("memcached://h?sokcet_timeout=3", "sokcet_timeout"),
        ("memcached://h?tls_context=yes", "tls_context"),
        ("memcached://h?timeout=soon", "timeout must be a finite number"),
        ("memcached://h?timeout=0", "timeout must be more than 0"),
        ("memcached://h?connect_timeout=-1", "connect_timeout must be more than 0"),
        ("memcached://h?max_pool_size=0", "max_pool_size must be more than 0"),
        ("memcached://h?max_pool_size=2.5", "max_pool_size must be a whole number"),
        ("memcached://h?upshot_lease=3", "upshot_lease"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_connecting(url: str, word: str) -> None:
    with pytest.raises(UrlError, match=word) as refused:
        MemcachedBackend(Url.parse(url))
    assert _PASSWORD not in str(refused.value)


def _exercise(backend: MemcachedBackend, record: StoredRecord) -> None:
    """Use every hook once."""
    assert backend.store([record], 10.0) == [True]
    assert backend.load([record.key], 10.0) == [record.body]
    backend.delete([record.key], 10.0)
    assert backend.load([record.key], 10.0) == [None]


def test_a_unix_socket_works(open_backend: BackendOpener, record: RecordMaker) -> None:
    with MemcachedServer(unix_socket=True) as server:
        _exercise(open_backend(server.url), record("a", bytes(3 * 2**20)))


def test_the_alias_works(
    open_backend: BackendOpener, server: MemcachedServer, record: RecordMaker
) -> None:
    _exercise(open_backend(f"cache+{server.url}"), record("a"))


def test_every_address_of_a_host_is_tried(
    open_backend: BackendOpener,
    server: MemcachedServer,
    record: RecordMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve = socket.getaddrinfo

    def resolve_to_two(host: str, *rest: Any, **more: Any) -> list[Any]:
        if host != "two-addresses":
            return resolve(host, *rest, **more)
        # The server listens on 127.0.0.1 only.
        return [*resolve("127.0.0.2", *rest, **more), *resolve("127.0.0.1", *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_two)

    _exercise(open_backend(f"memcached://two-addresses:{server.port}"), record("a"))
