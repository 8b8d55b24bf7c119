"""Every way to reach a Redis server: protocols, sockets, TLS, with and without hiredis."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis

from upshot import clock
from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage, Settlement
from upshot.clock import Deadline
from upshot.errors import ServiceRejectedError
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.redis.broker import RedisBroker
from upshot_backends.redis.driver import DRIVER_ERRORS
from upshot_backends.redis.results import RedisBackend
from upshot_conformance.servers import RedisServer

RecordMaker = Callable[..., StoredRecord]

_LATENESS = 4.0
"""Seconds that a call may exceed its timeout by on a busy machine; redis-py's own timeout is 5."""


def _exercise(url: Url, records: Sequence[StoredRecord]) -> None:
    """Use every kind of command once, over whatever transport the URL names."""
    backend, broker = RedisBackend(url), RedisBroker(url, "exercise")
    listener = backend.listen(30.0)
    listener.subscribe([record.key for record in records])
    assert list(backend.store(records, 30.0)) == [True] * len(records)
    heard: list[tuple[str | None, bytes | None]] = []
    deadline = Deadline(30.0)
    while len(heard) < len(records) and not deadline.expired:
        heard += listener.wait(0.2)
    assert heard == [(record.key, record.body) for record in records]
    assert list(backend.load([record.key for record in records], 30.0)) == [
        record.body for record in records
    ]
    listener.close()
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"\xff")], [], 30.0)
    (delivery,) = broker.fetch(["q"], limit=2, wait=30.0, lease=5.0, worker="w")
    assert delivery.body == b"\xff"
    assert list(broker.settle([Settlement(delivery=delivery)], 30.0)) == [True]
    assert broker.fetch(["q"], limit=2, wait=0.05, lease=5.0, worker="w") == []
    broker.close()
    backend.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_work(server: RedisServer, record: RecordMaker, protocol: int) -> None:
    url = Url.parse(f"{server.url}?protocol={protocol}")

    _exercise(url, [record(str(i), terminal=True) for i in range(3)])


def test_a_unix_socket_works(record: RecordMaker) -> None:
    with RedisServer(unix_socket=True) as server:
        _exercise(Url.parse(server.url), [record("a", terminal=True)])


@pytest.mark.parametrize("protocol", [2, 3])
def test_tls_works_with_a_known_authority(record: RecordMaker, protocol: int) -> None:
    with RedisServer(tls=True) as server:
        url = Url.parse(f"{server.url}&protocol={protocol}")

        # More than one TLS record, so that decrypted bytes wait above the socket.
        _exercise(url, [record(str(i), bytes(8000), terminal=True) for i in range(20)])


def test_a_frozen_tls_server_ends_a_call_in_time() -> None:
    with RedisServer(tls=True) as server:
        backend = RedisBackend(Url.parse(server.url))
        backend.load(["a"], 1.0)
        server.pause()
        for _ in range(2):  # on the open connection, then in the handshake of a new one
            began = clock.monotonic()
            with pytest.raises(redis.TimeoutError):
                backend.load(["a"], 0.3)
            assert clock.monotonic() - began <= 0.3 + _LATENESS
        server.resume()
        backend.close()


def test_an_unknown_authority_is_refused_at_once() -> None:
    with RedisServer(tls=True) as server:
        url = Url.parse(server.url.partition("?")[0])
        backend = RedisBackend(url)

        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            backend.load(["a"], 1.0)
        assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceRejectedError)

        careless = RedisBackend(Url.parse(f"{url.driver_url()}?ssl_cert_reqs=none"))
        assert careless.load(["a"], 1.0) == [None]
        careless.close()
        backend.close()


def test_a_certificate_of_another_host_is_refused() -> None:
    with RedisServer(tls=True) as server:
        text = server.url.replace("127.0.0.1", "127.0.0.2")
        with socket.create_server(("127.0.0.2", 0)) as relay:
            port = relay.getsockname()[1]
            url = Url.parse(text.replace(f":{server.port}", f":{port}"))

            def forward() -> None:
                peer, _ = relay.accept()
                with peer, socket.create_connection(("127.0.0.1", server.port)) as upstream:
                    upstream.sendall(peer.recv(65536))
                    peer.sendall(upstream.recv(65536))
                    peer.recv(65536)

            thread = threading.Thread(target=forward)
            thread.start()
            backend = RedisBackend(url)

            with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.2"):
                backend.load(["a"], 30.0)
            thread.join()


def test_everything_works_without_hiredis(server: RedisServer, tmp_path: Path) -> None:
    program = tmp_path / "without_hiredis.py"
    program.write_text(
        "import importlib.util, sys\n"
        "sys.modules['hiredis'] = None\n"
        "import redis.utils\n"
        "assert not redis.utils.HIREDIS_AVAILABLE\n"
        f"spec = importlib.util.spec_from_file_location('tests_of_connections', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.exercise_alone(sys.argv[1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    for protocol in (2, 3):
        arguments = [sys.executable, str(program), f"{server.url}?protocol={protocol}"]
        ended = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


def exercise_alone(text: str) -> None:
    """Run in a process of its own; see the test above."""
    url = Url.parse(text)
    keys = [f"without-hiredis-{url.query}:{i}" for i in range(50)]
    records = [
        StoredRecord(
            key=key,
            body=b"\r\n$-1\r\n" * 1000,
            rank=31,
            barrier=2**31 - 1,
            expires=60.0,
            task_id=key,
            state="SUCCESS",
            name="",
            reply_to="",
        )
        for key in keys
    ]
    _exercise(url, records)
