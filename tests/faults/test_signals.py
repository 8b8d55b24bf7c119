"""Signals, many in a second, make no call late to a service that does not answer.

Each interrupts the system call that a thread waits in, and the interpreter begins that again: with
its whole timeout, if it is the kernel that keeps the time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.endtoend.services import SERVICES, Service
from upshot import App, clock
from upshot.errors import ResultTimeoutError, ServiceUnavailableError
from upshot_conformance.proxies import Proxies

SERVERS = [pytest.param(each, id=each.name) for each in SERVICES if each.server]
TIMEOUT = 1.0  # seconds
LATENESS = 4.0  # seconds, on a busy machine
RESCUE = 10.0  # seconds after which the service answers all the same: a test that fails ends, too


@pytest.fixture
def signals() -> Iterator[threading.Event]:
    """Signals for this thread, 50 in a second once the event is set, which a handler ignores."""
    begun, ended, target = threading.Event(), threading.Event(), threading.get_ident()

    def send() -> None:
        begun.wait()
        while not ended.wait(0.02):
            signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    sender = threading.Thread(target=send)
    sender.start()
    yield begun
    ended.set()
    begun.set()
    sender.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("service", SERVERS)
def test_a_silent_service_is_given_up_in_time(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path, signals: threading.Event
) -> None:
    url = service.find(request, tmp_path)
    with closing(service.harness(url)) as harness, Proxies(url, harness) as line:
        broker = line.text if service.broker else f"memory://{os.urandom(4).hex()}"
        with App(
            broker=broker,
            backend="rpc://" if service.name == "rpc" else line.text,
            namespace=f"test-{os.urandom(4).hex()}",
            operation_timeout=TIMEOUT,
            no_worker_warning=None,
        ) as app:
            handle = app.send_task("jobs.add", [1, 2])
            line.hold()
            rescue = threading.Timer(RESCUE, line.heal)
            rescue.start()
            signals.set()
            began = clock.monotonic()
            with pytest.raises(ResultTimeoutError):
                handle.get(timeout=TIMEOUT)
            waited = clock.monotonic() - began
            if service.broker:
                with pytest.raises(ServiceUnavailableError):
                    app.send_task("jobs.add", [1, 2])
            sent = clock.monotonic() - began - waited
            rescue.cancel()
            rescue.join()
            line.heal()

    assert waited <= TIMEOUT + LATENESS
    assert sent <= TIMEOUT + LATENESS
