"""Servers that are none: whatever answers, a call ends in a typed error, in time, and in bounds."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from upshot import App, AsyncResult
from upshot.errors import UpshotError

from .public_calls import BOUND, TIMEOUT, Running, begin, lateness
from .scoreboard import Score

LATE: Final = 4  # how many times a call may be as late as a thread was at worst
SLACK: Final = 5.0  # seconds that the many threads of one process may hold each other up
ROOM: Final = 256  # MiB that all calls to one service may take, the impostor's own included
_PIECE: Final = 2**16  # bytes that are sent at once


@dataclass(frozen=True)
class Rubbish:
    """What is said to everybody.

    Attributes:
        first: said at once.
        then: said for ever after; b"" for silence.
        leaves: hangs up instead.
    """

    first: bytes
    then: bytes = b""
    leaves: bool = False


class Impostor:
    """Listens where a service should be, and says `rubbish` to whoever comes."""

    def __init__(self, rubbish: Rubbish) -> None:
        self._rubbish = rubbish
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Listen no more; who talks to a client goes on until that leaves."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(0.05)  # some protocols begin with the server's word
            with contextlib.suppress(TimeoutError):
                client.recv(_PIECE)
            client.settimeout(60.0)
            client.sendall(self._rubbish.first)
            while self._rubbish.then:
                client.sendall(self._rubbish.then)
            while not self._rubbish.leaves and client.recv(_PIECE):
                pass


FOR_ALL: Final = {
    "noise": Rubbish(b"noise"),  # which is drawn for each experiment
    "nothing": Rubbish(b"", leaves=True),
    "HTTP": Rubbish(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", leaves=True),
    "zeros": Rubbish(bytes(_PIECE)),
    "ones": Rubbish(b"\xff" * _PIECE),
    "a line without an end": Rubbish(b"+", b"a" * _PIECE),
}
OF_REDIS: Final = {
    "a long text": Rubbish(b"$536870912\r\n"),
    "many parts": Rubbish(b"*2147483647\r\n"),
    "deep parts": Rubbish(b"*1\r\n" * 100_000),
}
SERVICES: Final = {
    "redis": ("redis://127.0.0.1:{}/0", OF_REDIS),
    "redis-cluster": ("redis+cluster://127.0.0.1:{}/0", OF_REDIS),
    "redis-sentinel": ("redis+sentinel://127.0.0.1:{}/mymaster", OF_REDIS),
    "mongo": ("mongodb://127.0.0.1:{}/", {"a long document": Rubbish(b"\xff\xff\xff\x7f" * 4)}),
    "memcached": (
        "memcached://127.0.0.1:{}",
        {"a long value": Rubbish(b"VERSION 1\r\nVALUE k 0 4294967295\r\n")},
    ),
    "postgresql": (
        "postgresql://a:b@127.0.0.1:{}/x",
        {
            "a long greeting": Rubbish(b"R\x7f\xff\xff\xff"),
            "a long error": Rubbish(b"E\x7f\xff\xff\xff", b"a" * _PIECE),
        },
    ),
    "mariadb": (
        "mariadb://a:b@127.0.0.1:{}/x",
        {"a long greeting": Rubbish(b"\xff\xff\xff\x00\x0a", b"\x0a" * _PIECE)},
    ),
    "rpc": ("amqp://a:b@127.0.0.1:{}/", {"a long frame": Rubbish(b"\x01\x00\x00\xff\xff\xff\xff")}),
}


def most_memory(*, begin: bool = False) -> int:
    """Return the most that this process has had in memory, in MiB; `begin` to count anew."""
    if begin:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def calls(app: App, what: str) -> list[Running]:
    """Begin three calls that go different ways."""
    return [
        begin(f"{what}: load", lambda: app.results.load("a")),
        begin(f"{what}: get", lambda: AsyncResult[object]("a", app.origin).get(TIMEOUT)),
        begin(f"{what}: send", lambda: app.send_task("jobs.add", [1, 2])),
    ]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hear nothing of what failing calls log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.experiment(5)
@pytest.mark.parametrize("service", SERVICES)
def test_whoever_talks_rubbish_is_told_from_a_service(
    service: str, score: Score, dice: random.Random
) -> None:
    url, own = SERVICES[service]
    said = {**FOR_ALL, "noise": Rubbish(dice.randbytes(_PIECE)), **own}
    before = most_memory(begin=True)
    with contextlib.ExitStack() as stack, lateness() as late:
        apps: dict[str, App] = {}
        for what, rubbish in said.items():
            impostor = stack.enter_context(contextlib.closing(Impostor(rubbish)))
            at = url.format(impostor.port)
            of_results, of_messages = ("rpc://", at) if service == "rpc" else (at, "memory://x")
            app = App(broker=of_messages, backend=of_results, operation_timeout=TIMEOUT)
            app.results.stats()  # its driver is imported now, and so is the broker's
            _ = app.broker.current
            apps[what] = app
        running = [call for what, app in apps.items() for call in calls(app, what)]
        found = [each.answer() for each in running]
        running = [begin(f"{what}: close", app.close) for what, app in apps.items()]
        found += [each.answer() for each in running]
        bound = BOUND + SLACK + LATE * late()
    for each in found:
        score.submitted += 1
        score.executed += each.seconds < bound
        score.hung += each.seconds >= bound
        score.recorded += isinstance(each.error, UpshotError)
        if not each.is_clear:
            score.surprise(f"{each.name} raised {each.error!r}")
        if each.seconds >= BOUND:
            score.remark(f"{each.name} took {each.seconds:.2f} s")
    grown = most_memory() - before
    score.remark(f"{grown} MiB")
    if grown > ROOM:
        score.surprise(f"{grown} MiB were taken")
    score.judge()
