"""How RabbitMQ URLs are read."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upshot.errors import ServiceRejectedError, UrlError
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import DRIVER_ERRORS, driver_options
from upshot_backends.amqp.io_thread import IoThread

_PASSWORD = "s3cret-w0rd"


@pytest.mark.parametrize(
    ("url", "virtual_host"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h//", "/"),
        ("pyamqp://guest@localhost//", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/%2f", "/"),
        ("amqp://h/jobs", "jobs"),
        ("amqp://h//jobs", "/jobs"),
        ("amqp://h/%2Fjobs", "/jobs"),
        ("amqp://h/a%20b", "a b"),
    ],
)
def test_the_path_is_the_virtual_host(url: str, virtual_host: str) -> None:
    (options,) = driver_options(Url.parse(url))

    assert options.virtual_host == virtual_host


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("amqp://h", "guest", "guest"),
        ("amqp://guest@h", "guest", "guest"),
        ("amqp://bob@h", "bob", "guest"),
        ("amqp://bob:b%40b@h", "bob", "b@b"),
        ("amqp://bob:@h", "bob", ""),
    ],
)
def test_guest_fills_what_is_missing(url: str, username: str, password: str) -> None:
    (options,) = driver_options(Url.parse(url))

    assert (options.credentials.username, options.credentials.password) == (username, password)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://h", [("h", 5672)]),
        ("amqps://h", [("h", 5671)]),
        ("pyamqp://h:1234", [("h", 1234)]),
        ("amqp://[::1]:1234", [("::1", 1234)]),
        ("amqp://a,b:9", [("a", 5672), ("b", 9)]),
        ("amqp://a//;amqp://b//", [("a", 5672), ("b", 5672)]),
        ("amqp://", [("localhost", 5672)]),
    ],
)
def test_every_host_is_tried(url: str, hosts: list[tuple[str, int]]) -> None:
    found = driver_options(Url.parse(url))

    assert [(options.host, options.port) for options in found] == hosts


def test_parameters_reach_pika() -> None:
    text = "amqp://h?heartbeat=7&channel_max=9&socket_timeout=2.5&stack_timeout=3&frame_max=8192"
    (options,) = driver_options(Url.parse(text))

    assert (options.heartbeat, options.channel_max, options.frame_max) == (7, 9, 8192)
    assert (options.socket_timeout, options.stack_timeout) == (2.5, 3.0)


def test_parameters_that_would_break_us_have_no_effect() -> None:
    text = "amqp://h?connection_attempts=9&retry_delay=60&blocked_connection_timeout=1"
    (options,) = driver_options(Url.parse(text))

    assert (options.connection_attempts, options.blocked_connection_timeout) == (1, None)


@pytest.mark.parametrize(
    "query", ["hartbeat=7", "heartbeat=soon", "frame_max=1", "ssl_options=[", "tcp_options={"]
)
def test_a_parameter_that_pika_does_not_take_is_refused(query: str) -> None:
    with pytest.raises(UrlError, match=query.partition("=")[0]) as refused:
        AmqpConnection(Url.parse(f"amqp://u:{_PASSWORD}@h/?{query}"), IoThread())
    assert _PASSWORD not in f"{refused.value} {refused.value.__cause__!r}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    key = file.with_suffix(".key")
    subprocess.run(
        [*make.split(), *names, "-keyout", str(key), "-out", str(file)],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + key.read_text())
    return file


async def _declare(session: Session) -> int:
    channel = await session.channel()
    return await channel.declare("", durable=False, exclusive=True)


def test_tls_works_with_a_known_authority_and_with_no_other(
    open_network: Callable[..., Any], certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    network = open_network(tls=context)
    thread = IoThread()
    address = network.url
    known = Url.parse(f"{address}?ssl_options={{'ca_certs':'{certificate}'}}")
    unknown = Url.parse(address)

    assert AmqpConnection(known, thread).call(_declare, 20.0) == 0
    with pytest.raises(Exception) as refused:  # noqa: PT011 - `translate` says what it means
        AmqpConnection(unknown, thread).call(_declare, 20.0)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, unknown), ServiceRejectedError)
    thread.close()
