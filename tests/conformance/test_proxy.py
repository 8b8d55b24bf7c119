"""The proxy between clients and services, tested with plain sockets."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from upshot import clock
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers.ports import PortReservation

PATIENCE = 20.0  # seconds; nothing here takes a hundredth of it on an idle machine
LATE = 0.3  # seconds; far longer than a healthy proxy takes, and short enough to wait for


class Service(socketserver.ThreadingTCPServer):
    """Says everything back, and notes it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard = b""
        self.ends = 0
        self.changed = threading.Condition()
        self.answering = True

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def note(self, data: bytes) -> None:
        with self.changed:
            self.heard += data
            self.ends += not data
            self.changed.notify_all()

    def comes_to_hear(self, data: bytes) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: data in self.heard, PATIENCE)

    def comes_to_ends(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.ends == count, PATIENCE)


class Echo(socketserver.BaseRequestHandler):
    server: Any  # a Service

    def handle(self) -> None:
        data = b"?"
        with contextlib.suppress(OSError):
            while data:
                data = b""
                with contextlib.suppress(ConnectionError):
                    data = self.request.recv(2**16)
                self.server.note(data)
                if data and self.server.answering:
                    self.request.sendall(data)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(PATIENCE)


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", service.port) as proxy:
        yield proxy


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=PATIENCE)


def said(client: socket.socket, size: int) -> bytes:
    """What comes, until there is that much of it or the end."""
    parts: list[bytes] = []
    while size > 0 and (data := client.recv(min(size, 2**16))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def asked(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return said(client, len(question))


def comes_to_connections(proxy: Proxy, count: int) -> None:
    deadline = clock.Deadline(PATIENCE)
    while proxy.connections != count and not deadline.expired:
        clock.sleep(0.002)
    assert proxy.connections == count


def test_what_is_said_passes_both_ways(proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as other:
        assert asked(client, b"one") == b"one"
        assert asked(other, b"two") == b"two"
        assert asked(client, b"three") == b"three"
        assert proxy.connections == proxy.accepted == 2
    comes_to_connections(proxy, 0)
    assert proxy.accepted == 2


def test_much_passes_whole_also_to_who_reads_late(proxy: Proxy) -> None:
    much = bytes(range(256)) * 2**15  # 8 MiB: more than the proxy and the kernel hold
    with connected(proxy) as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.sendall, much)
        clock.sleep(LATE)
        assert said(client, len(much)) == much
        sending.result(PATIENCE)


def test_an_end_passes_after_what_was_said(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"goodbye")
        client.shutdown(socket.SHUT_WR)
        assert service.comes_to_ends(1)
        assert said(client, 100) == b"goodbye"
        assert client.recv(1) == b""
    comes_to_connections(proxy, 0)


def test_a_cut_resets_and_refuses_until_it_is_healed(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as idle:
        assert asked(client, b"before") == b"before"
        comes_to_connections(proxy, 2)
        proxy.cut()
        for each in (client, idle):
            with pytest.raises(ConnectionError):
                each.recv(1)
    assert service.comes_to_ends(2)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
    address = proxy.address

    proxy.heal()

    assert proxy.address == address
    with connected(proxy) as client:
        assert asked(client, b"after") == b"after"


def test_a_reset_ends_what_is_open_and_nothing_else(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"before") == b"before"
        proxy.reset()
        with pytest.raises(ConnectionError):
            client.recv(1)
    with connected(proxy) as client:
        assert asked(client, b"after") == b"after"


def test_a_delay_keeps_answers_back_and_their_order(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"quick") == b"quick"
        proxy.delay(LATE)
        began = clock.monotonic()
        assert asked(client, b"slow") == b"slow"
        assert clock.monotonic() - began >= LATE
        client.sendall(b"first, ")
        proxy.heal()
        assert asked(client, b"second.") + said(client, 7) == b"first, second."


def test_what_is_delayed_goes_at_once_when_healed(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.delay(10 * PATIENCE)
        client.sendall(b"late")
        assert service.comes_to_hear(b"late")
        proxy.heal()
        assert said(client, 4) == b"late"


def test_an_answer_can_come_a_byte_at_a_time(service: Service, proxy: Proxy) -> None:
    pause = LATE / 10
    with connected(proxy) as client:
        proxy.trickle(pause)
        began = clock.monotonic()
        assert asked(client, b"drop by") == b"drop by"
        assert clock.monotonic() - began >= 7 * pause
        proxy.trickle(10 * PATIENCE)
        client.sendall(b" drop")
        assert service.comes_to_hear(b" drop")

        proxy.heal()

        assert said(client, 5) == b" drop"


def test_dropped_answers_never_come_but_requests_pass(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as silent:
        assert asked(client, b"before") == b"before"
        assert asked(silent, b"hello") == b"hello"
        proxy.drop_replies()
        client.sendall(b"unanswered")
        assert service.comes_to_hear(b"unanswered")
        client.settimeout(LATE)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.dropped >= 1

        proxy.heal()

        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionError):  # what was lost cannot be left out
            client.recv(1)
        assert asked(silent, b"still here") == b"still here"


def test_a_dropped_answer_can_cut_its_connection(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as silent:
        assert asked(silent, b"hello") == b"hello"
        proxy.drop_replies(cut=True)
        client.sendall(b"last words")
        with pytest.raises(ConnectionError):
            client.recv(1)
        assert service.comes_to_hear(b"last words")
        proxy.heal()
        assert asked(silent, b"still here") == b"still here"


def test_a_single_answer_can_be_lost(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.lose_answer(after=2)
        assert asked(client, b"one") == b"one"
        assert asked(client, b"two") == b"two"
        client.sendall(b"three")
        with pytest.raises(ConnectionError):
            client.recv(1)
        assert service.comes_to_hear(b"three")
    with connected(proxy) as client:
        assert asked(client, b"four") == b"four"
    assert proxy.dropped == 1


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_answer_can_end_after_any_byte(service: Service, proxy: Proxy, after: int) -> None:
    with connected(proxy) as client:
        assert asked(client, b"before") == b"before"
        proxy.cut_short(after=after)
        client.sendall(b"question")
        assert said(client, 100) == b"question"[:after]
        assert service.comes_to_hear(b"question")
    with connected(proxy) as client:
        assert asked(client, b"after") == b"after"
    assert proxy.dropped == 1


def test_a_half_closed_service_still_listens(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"before") == b"before"
        proxy.half_close()
        assert client.recv(1) == b""
        client.sendall(b"into the void")
        assert service.comes_to_hear(b"into the void")
        with connected(proxy) as other:
            assert asked(other, b"new") == b"new"
        proxy.heal()
        assert service.comes_to_ends(2)


def test_held_words_come_whole_when_healed(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"before") == b"before"
        proxy.hold()
        client.sendall(b"held")
        with connected(proxy) as other:
            other.sendall(b"held as well")
            client.settimeout(LATE)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert service.heard == b"before"

            proxy.heal()

            client.settimeout(PATIENCE)
            assert said(client, 4) == b"held"
            assert said(other, 12) == b"held as well"


def test_one_fault_takes_the_place_of_another(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"before") == b"before"
        proxy.hold()
        client.sendall(b"held")
        proxy.delay(0)
        assert said(client, 4) == b"held"
        proxy.cut()
        proxy.hold()
    with connected(proxy) as client:
        client.sendall(b"again")
        proxy.heal()
        assert said(client, 5) == b"again"


def test_turns_are_counted_and_not_pieces(service: Service, proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as other:
        for _ in range(3):
            assert asked(client, b"a question") == b"a question"
        assert proxy.turns == 3
        service.answering = False
        for word in (b"one, ", b"two, ", b"three"):
            other.sendall(word)
            assert service.comes_to_hear(word)
        assert proxy.turns == 4


def test_a_service_that_is_down_is_down_through_the_proxy() -> None:
    nobody = PortReservation()
    with contextlib.closing(nobody), Proxy("127.0.0.1", nobody.number) as proxy:
        with pytest.raises(ConnectionError), connected(proxy) as client:
            assert client.recv(1), "an end is no answer, but no failure either"
        comes_to_connections(proxy, 0)


def test_answers_can_be_translated(service: Service, proxy: Proxy) -> None:
    proxy.translate = bytes.upper

    with connected(proxy) as client:
        assert asked(client, b"quiet") == b"QUIET"
        assert service.heard == b"quiet"


def test_closing_ends_everything(service: Service) -> None:
    before = set(threading.enumerate())
    proxy = Proxy("127.0.0.1", service.port)
    with proxy:
        client = connected(proxy)
        assert asked(client, b"hello") == b"hello"
        proxy.hold()
    with client, pytest.raises(ConnectionError):
        client.recv(1)
    proxy.close()
    assert service.comes_to_ends(1)
    assert not [each for each in set(threading.enumerate()) - before if "proxy" in each.name]
