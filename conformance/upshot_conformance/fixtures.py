"""The fixtures of the suite; third parties may use them in tests of their own.

`client` and `second_client` are open on the backend under test in a namespace that only this test
uses. `harness` looks at the service behind the backend's back. `timing` has the three time knobs.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, Protocol, final

import pytest

from upshot.backend import Backend, Capabilities
from upshot.client import ResultClient
from upshot.origin import Origin
from upshot.result import AsyncResult
from upshot.sealing import Sealing
from upshot_conformance.clauses import BrokenClauseError
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.proxies import Proxies
from upshot_conformance.records import CODECS
from upshot_conformance.resources import running_threads
from upshot_conformance.selection import RUN, Run, Target
from upshot_conformance.timing import Timing, calibrate

__all__ = [
    "Clients",
    "MakeHandle",
    "Proxied",
    "capabilities",
    "client",
    "clients",
    "handle",
    "harness",
    "namespace",
    "poll",
    "proxied",
    "quiet",
    "run",
    "second_client",
    "target",
    "timing",
    "within",
]

_EXPIRES: Final = 600.0
"""Seconds that a record of the suite is kept: should a run be killed, nothing stays for long."""

_ENDING: Final = 30.0
"""Seconds that a driver's threads may take to end; pymongo's look every ten whether they should."""

_SOON: Final = 120.0
"""Seconds; far less than any expiry that the suite gives a record."""


@final
class Clients:
    """Opens clients on the backend under test, and closes them when the test is over."""

    def __init__(self, target: Target, namespace: str, stack: contextlib.ExitStack) -> None:
        self._target = target
        self._namespace = namespace
        self._stack = stack

    def open(
        self,
        *,
        make: Callable[[], Backend] | None = None,
        url: str | None = None,
        timeout: float = 5.0,
        default_expiry: bool = False,
        namespace: str | None = None,
        sealing: Sealing | None = None,
    ) -> ResultClient:
        """Open one more client.

        Args:
            make: makes another backend than the one under test, on the same service.
            url: another way to the same service, such as through a proxy; None for the usual one.
            timeout: seconds that one operation may take; the default is the client's own.
            default_expiry: keep the client's own default, instead of the suite's shorter one.
            namespace: another than the test's own, which it begins with, so that what is left in
                it is found; None for the test's own.
            sealing: what signs, encrypts and compresses; None for nothing.
        """
        target = self._target if url is None else replace(self._target, text=url)
        declared = target.capabilities
        expires = _EXPIRES if declared and declared.expiry_resolution is not None else None
        make = make or target.make
        namespace = self._namespace if namespace is None else namespace
        if default_expiry:
            opened = ResultClient(make, url=target.url, namespace=namespace, timeout=timeout)
        else:
            opened = ResultClient(
                make,
                url=target.url,
                namespace=namespace,
                timeout=timeout,
                expires=expires,
                sealing=sealing,
            )
        self._stack.callback(opened.close)
        return opened


@final
class Proxied:
    """The service behind proxies, and clients that reach it through them.

    Attributes:
        line: all proxies together; its faults are the network's.
    """

    def __init__(self, line: Proxies, clients: Clients) -> None:
        self.line = line
        self._clients = clients

    def open(
        self, *, make: Callable[[], Backend] | None = None, timeout: float = 5.0
    ) -> ResultClient:
        """Open a client behind the proxies, in the test's namespace, as `Clients.open` does."""
        return self._clients.open(make=make, url=self.line.text, timeout=timeout)

    def open_direct(self) -> ResultClient:
        """Open a client that nothing disturbs, on the same servers and in the same namespace.

        `client` and `second_client` need not see what a client behind the proxies stores.
        """
        return self._clients.open(url=self.line.direct)


class MakeHandle(Protocol):
    """Returns the handle of an id, as an app on `client` would."""

    def __call__(self, task_id: str, client: ResultClient | None = None) -> AsyncResult[Any]: ...


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """The backend under test."""
    chosen = request.param
    assert isinstance(chosen, Target)
    return chosen


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run:
    """What all tests of this process share."""
    return request.config.stash[RUN]


@pytest.fixture(scope="session")
def capabilities(target: Target) -> Capabilities:
    """What the backend under test declares."""
    assert target.capabilities is not None
    return target.capabilities


@pytest.fixture(scope="session")
def timing(target: Target, run: Run, capabilities: Capabilities) -> Timing:
    """The time knobs, measured once per backend."""
    namespace = f"{run.namespaces}-timing"
    with ResultClient(target.make, url=target.url, namespace=namespace) as client:
        timing = calibrate(
            lambda: client.load("anybody-there"),
            visibility=capabilities.visibility,
            scale=run.scale,
        )
    run.timings[target.label] = timing
    return timing


@pytest.fixture(scope="session")
def within(timing: Timing) -> float:
    """Seconds that what should happen has to happen in."""
    return timing.within


@pytest.fixture(scope="session")
def quiet(timing: Timing) -> float:
    """Seconds for which what must not happen is watched."""
    return timing.quiet


@pytest.fixture(scope="session")
def poll(timing: Timing) -> float:
    """Seconds between two looks."""
    return timing.poll


@pytest.fixture(scope="session")
def _open_harness(target: Target) -> Iterator[Harness | None]:
    opened = target.open_harness()
    yield opened
    if opened is not None:
        opened.close()


@pytest.fixture
def harness(_open_harness: Harness | None, target: Target) -> Harness:
    """The harness of the service; without one the test is unavailable."""
    if _open_harness is None:
        raise UnavailableError(f"nobody wrote a harness for {target.url.scheme}:// URLs")
    return _open_harness


@pytest.fixture(scope="module")
def _ending(timing: Timing) -> Iterator[dict[threading.Thread, str]]:
    """The threads that were still there when a test was over, each with the test's name.

    Some drivers' threads end by themselves half a second later: they are waited for once.
    """
    left: dict[threading.Thread, str] = {}
    yield left
    timing.eventually(lambda: not any(thread.is_alive() for thread in left), within=_ENDING)
    stay = [f"{thread.name} of {test}" for thread, test in left.items() if thread.is_alive()]
    if stay:
        raise BrokenClauseError("RL-5", f"threads run after all was closed: {', '.join(stay)}")


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest,
    _open_harness: Harness | None,
    _ending: dict[threading.Thread, str],
    target: Target,
    run: Run,
    timing: Timing,
) -> Iterator[str]:
    """A namespace that only this test uses; what the test leaves behind is its failure."""
    name = f"{run.namespaces}-{secrets.token_hex(4)}"
    alone = target.private and not run.parallel
    threads = running_threads()
    before = _open_harness.raw_objects("") if _open_harness and alone else set[str]()
    yield name
    test: str = request.node.name
    _ending.update(dict.fromkeys(running_threads() - threads, test))
    if _open_harness is not None:
        _assert_unsubscribed(_open_harness, name, timing)
        _open_harness.purge(name)
        assert not _open_harness.raw_objects(name), "the harness's purge does not purge"
        if alone:
            strays = _lasting(_open_harness, _open_harness.raw_objects("") - before)
            assert not strays, f"server objects outside the client's namespace: {sorted(strays)}"


@pytest.fixture
def clients(target: Target, namespace: str) -> Iterator[Clients]:
    """Opens further clients."""
    with contextlib.ExitStack() as stack:
        yield Clients(target, namespace, stack)


@pytest.fixture
def client(clients: Clients) -> ResultClient:
    """A client of the backend under test, in a namespace of its own."""
    return clients.open()


@pytest.fixture
def second_client(clients: Clients) -> ResultClient:
    """Another client, in the same namespace: what another process would have."""
    return clients.open()


@pytest.fixture
def proxied(target: Target, namespace: str, harness: Harness) -> Iterator[Proxied]:
    """Opens clients whose line to the service can be cut, delayed and so on.

    They are closed before the proxies, and over a line that is healed.
    """
    with Proxies(target.text, harness) as line, contextlib.ExitStack() as stack:
        yield Proxied(line, Clients(target, namespace, stack))
        line.heal()


@pytest.fixture
def handle(client: ResultClient) -> MakeHandle:
    """Makes handles, as an app would."""
    main = client

    def make(task_id: str, client: ResultClient | None = None) -> AsyncResult[Any]:
        return AsyncResult(task_id, Origin(client or main, CODECS))

    return make


def _lasting(harness: Harness, names: set[str]) -> set[str]:
    """Return the objects that the service does not remove by itself within two minutes.

    What carries results keeps something for a whole process, in no namespace. Of a process that
    ended without closing it may stay for a moment: without I/O at its end, only the service can
    remove it.
    """
    lasting: set[str] = set()
    for name in names:
        try:
            left = harness.ttl(name)
        except UnavailableError:
            left = None
        if left is None or left > _SOON:
            lasting.add(name)
    return lasting


def _assert_unsubscribed(harness: Harness, namespace: str, timing: Timing) -> None:
    with contextlib.suppress(UnavailableError):  # then no test of subscriptions passes either
        timing.eventually(lambda: not harness.subscriptions(namespace))
        left = harness.subscriptions(namespace)
        assert not left, f"subscriptions that the closed clients left: {sorted(left)}"
