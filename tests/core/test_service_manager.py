"""What a service manager is told, as it hears it: at a datagram socket of the test."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from upshot import clock
from upshot.worker.manager import ServiceManager

MakeSocket = Callable[[str], socket.socket]


@pytest.fixture
def listen() -> Iterator[MakeSocket]:
    """Make a socket at an address, which hears what has been sent and waits for nothing."""
    opened: list[socket.socket] = []

    def listen(address: str) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.append(channel)
        channel.bind(address)
        channel.setblocking(False)
        return channel

    yield listen
    for channel in opened:
        channel.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock, in seconds."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(clock, "monotonic", lambda: seconds)

    set_to(100.0)
    return set_to


def heard(channel: socket.socket) -> list[str]:
    """All that was told and not heard yet, each datagram as one text."""
    found: list[str] = []
    while True:
        try:
            found.append(channel.recv(4096).decode())
        except BlockingIOError:
            return found


def fill(address: str) -> int:
    """Send until the socket takes no more, or this sender may not; return how often it took it."""
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while other.sendto(b"FULL=1", address):
            sent += 1
    return sent


def test_it_is_ready_once_when_all_processes_consume(address: str, listen: MakeSocket) -> None:
    channel = listen(address)
    manager = ServiceManager({"NOTIFY_SOCKET": address})

    for consuming in (0, 1, 1, 2, 2, 1, 2):
        manager.running(consuming, 2)

    assert heard(channel) == [
        "STATUS=0 of 2 processes consume",
        "STATUS=1 of 2 processes consume",
        "READY=1\nSTATUS=2 of 2 processes consume",
        "STATUS=1 of 2 processes consume",
        "STATUS=2 of 2 processes consume",
    ]


def test_an_abstract_socket_begins_with_an_at_sign(listen: MakeSocket) -> None:
    name = f"upshot-test-{uuid.uuid4().hex}"
    channel = listen(f"\0{name}")

    ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).running(1, 1)

    assert heard(channel) == ["READY=1\nSTATUS=1 of 1 processes consume"]


def test_the_variables_are_taken_from_the_environment_and_can_be_put_back(address: str) -> None:
    given = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    environment = dict(given)

    manager = ServiceManager(environment)

    assert environment == {"HOME": "/"}
    manager.restore(environment)
    assert environment == given


def test_without_a_socket_nothing_is_told(
    listen: MakeSocket, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager({"WATCHDOG_USEC": "1000000"})

    manager.running(1, 1)
    manager.alive()
    manager.stopping(1.0, restarts=False)

    assert manager.patience == float("inf")
    assert caplog.messages == []


def test_life_is_told_twice_in_the_time_of_the_watchdog(
    address: str, listen: MakeSocket, now: Callable[[float], None]
) -> None:
    channel = listen(address)
    manager = ServiceManager(
        {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    )

    told: dict[float, int] = {}
    for seconds in (100.0, 105.0, 109.9, 110.0, 110.1, 119.9, 120.0):
        now(seconds)
        manager.alive()
        told[seconds] = len(heard(channel))

    assert told == {100.0: 1, 105.0: 0, 109.9: 0, 110.0: 1, 110.1: 0, 119.9: 0, 120.0: 1}
    assert manager.patience == 20


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "9" * 400},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_for_this_process_no_life_is_told(
    watchdog: dict[str, str], address: str, listen: MakeSocket
) -> None:
    channel = listen(address)
    manager = ServiceManager({"NOTIFY_SOCKET": address, **watchdog})

    manager.alive()

    assert heard(channel) == []
    assert manager.patience == float("inf")


def test_a_watchdog_of_less_than_five_seconds_leaves_five_to_each_process(address: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"})

    assert manager.patience == 5


def test_a_stop_is_told_once_and_lengthened_until_its_time_is_over(
    address: str, listen: MakeSocket, now: Callable[[float], None]
) -> None:
    channel = listen(address)
    manager = ServiceManager({"NOTIFY_SOCKET": address})

    for seconds, left in ((100.0, 25.0), (100.2, 24.8), (101.0, 24.0), (130.0, 0.0), (131.0, 0.0)):
        now(seconds)
        manager.stopping(left, restarts=False)

    status = "STATUS=stopping: running tasks have 25 seconds to finish"
    assert heard(channel) == [
        f"STOPPING=1\n{status}\nEXTEND_TIMEOUT_USEC=10000000",
        "EXTEND_TIMEOUT_USEC=10000000",
    ]


def test_a_reload_says_when_it_began(
    address: str, listen: MakeSocket, now: Callable[[float], None]
) -> None:
    channel = listen(address)

    ServiceManager({"NOTIFY_SOCKET": address}).stopping(0.0, restarts=True)

    status = "STATUS=stopping: running tasks have 0 seconds to finish"
    assert heard(channel) == [f"RELOADING=1\nMONOTONIC_USEC=100000000\n{status}"]


def test_what_a_full_socket_does_not_take_is_told_later(
    address: str, listen: MakeSocket, caplog: pytest.LogCaptureFixture
) -> None:
    channel = listen(address)
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    while fill(address):
        pass

    manager.running(1, 1)
    manager.running(1, 1)
    assert {*heard(channel)} == {"FULL=1"}
    manager.running(1, 1)

    assert heard(channel) == ["READY=1\nSTATUS=1 of 1 processes consume"]
    assert len(caplog.messages) == 1
    assert "cannot be told" in caplog.text


@pytest.mark.parametrize("name", ["vsock:2:1234", "notify", f"/{'x' * 200}", "/nowhere/notify"])
def test_a_socket_that_cannot_be_reached_is_said_once_and_harms_nothing(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": name})

    for _ in range(3):
        manager.running(1, 1)

    assert len(caplog.messages) == 1
    assert "NOTIFY_SOCKET" in caplog.text
