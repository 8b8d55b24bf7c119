"""Capabilities: readable at once, never wider, and refused where they are not declared."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from upshot import clock, registry
from upshot.backend import Backend, Capabilities
from upshot.client import ResultClient
from upshot.errors import PayloadTooLargeError, UnsupportedError
from upshot.url import Url
from upshot_conformance.clauses import clause
from upshot_conformance.fixtures import Clients
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.resources import open_descriptors, running_threads
from upshot_conformance.selection import Target
from upshot_conformance.suite.claims import claiming
from upshot_conformance.suite.spy import Spy
from upshot_conformance.suite.waits import returns, times_out
from upshot_conformance.timing import Timing

DEMANDS: dict[str, Callable[[Any], bool]] = {
    "visibility": lambda seconds: 0 <= seconds <= 60,
    "poll_interval": lambda seconds: 0 < seconds <= 1,
    "expiry_resolution": lambda seconds: seconds is None or 0 <= seconds <= 60,
    "max_record_bytes": lambda size: 2**16 <= size <= 2**40,
    "max_key_bytes": lambda size: 130 <= size <= 2**20,  # two SHA-256 in hex, each after a "#"
}
"""What each number may be; a yes or no is any."""

WIDER_IF_LESS = frozenset({"visibility", "poll_interval", "expiry_resolution"})
"""Numbers that promise more the smaller they are."""

NONE = frozenset({"expiry_resolution"})
"""Numbers that may be missing."""


def wider(before: Capabilities, after: Capabilities) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which `after` promises more than `before`."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in fields(Capabilities):
        had, has = getattr(before, field.name), getattr(after, field.name)
        if has is None or had == has:
            continue
        more = had is None or (has < had if field.name in WIDER_IF_LESS else has > had)
        if more:
            found[field.name] = (had, has)
    return found


@contextmanager
def nobody() -> Generator[int]:
    """Hold a port of this machine on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def moved(target: Target, port: int) -> Url:
    """Return the URL of a target with another port of this machine; a file stays where it is."""
    if not target.url.hosts:
        return target.url
    start, _, rest = target.text.partition("://")
    shape = re.fullmatch(r"(?P<user>(?:[^/?]*@)?)[^/?]*(?P<rest>.*)", rest)
    assert shape is not None, "the URL could be read before"
    return Url.parse(f"{start}://{shape['user']}127.0.0.1:{port}{shape['rest']}")


@clause("CP-1")
def test_capabilities_and_contract_are_readable_where_no_service_is(
    target: Target, timing: Timing
) -> None:
    backend_class = registry.backend_class(target.url)
    with nobody() as port:
        url = moved(target, port)
        make = partial(backend_class, url)
        make()  # what the driver opens once per process stays open
        descriptors, threads = open_descriptors(), running_threads()
        began = clock.monotonic()

        client = ResultClient(make, url=url, namespace="cf-nobody", expires=None)
        declared, contract = client.capabilities, client.backend.contract
        took = clock.monotonic() - began
        opened = open_descriptors() - descriptors
        started = running_threads() - threads
        client.close()

    assert isinstance(backend_class.capabilities, Capabilities)
    assert wider(backend_class.capabilities, declared) == {}
    assert re.fullmatch(r"\d+\.\d+", contract), f"{contract!r} is no version of the contract"
    assert contract == backend_class.contract
    assert took < 1.0 + timing.jitter
    assert opened == set(), "what it opened before anything was asked"
    assert started == set(), "what it started before anything was asked"


@clause("CP-1")
def test_making_a_client_asks_the_backend_for_nothing(target: Target, clients: Clients) -> None:
    spy = Spy.above(target.make())

    client = clients.open(make=lambda: spy)
    shown = (client.capabilities, client.stats(), repr(client), client.backend.contract)

    assert spy.calls == []
    assert shown[0] == spy.capabilities


@clause("CP-1")
def test_capabilities_cannot_be_changed(client: ResultClient, target: Target) -> None:
    for each in (registry.backend_class(target.url).capabilities, client.capabilities):
        changeable = [field.name for field in fields(Capabilities) if can_be_set(each, field.name)]
        assert changeable == []
        assert hash(each) == hash(each)


def can_be_set(declared: Capabilities, name: str) -> bool:
    """Set a field to the value that it has, and tell whether that was allowed."""
    try:
        setattr(declared, name, getattr(declared, name))
    except (AttributeError, TypeError):
        return False
    return True


@clause("CP-1")
def test_capabilities_are_of_the_declared_types_and_in_range(
    client: ResultClient, target: Target
) -> None:
    for each in (registry.backend_class(target.url).capabilities, client.capabilities):
        assert type(each) is Capabilities
        for field in fields(Capabilities):
            value: Any = getattr(each, field.name)
            demand = DEMANDS.get(field.name)
            if demand is None:
                assert type(value) is bool, f"{field.name} is {value!r}, neither True nor False"
                continue
            if value is not None or field.name not in NONE:
                assert isinstance(value, int | float), f"{field.name} is {value!r}, and no number"
                assert not isinstance(value, bool), f"{field.name} is {value!r}, and no number"
                assert -math.inf < value < math.inf, f"{field.name} is {value!r}"
            assert demand(value), f"{field.name} is {value!r}"
        assert type(each.max_record_bytes) is int
        assert type(each.max_key_bytes) is int


@clause("CP-1")
def test_what_is_learnt_by_connecting_only_narrows(
    clients: Clients, client: ResultClient, target: Target, timing: Timing
) -> None:
    declared, before = registry.backend_class(target.url).capabilities, client.capabilities

    def use(step: Callable[[ResultClient], object]) -> None:
        step(client)
        seen.append(client.capabilities)

    seen = [before]
    use(lambda each: each.load(new_id()))
    use(lambda each: each.store_many([success(new_id(), n) for n in range(3)]))
    use(lambda each: returns(each, new_id(), timing))
    use(lambda each: times_out(each, new_id(), timing))
    use(lambda each: each.forget([new_id()]))
    use(lambda each: list(each.scan()) if each.capabilities.scan else None)

    assert wider(declared, before) == {}
    for earlier, later in pairwise(seen):
        assert wider(earlier, later) == {}
    assert target.capabilities is not None
    assert seen[-1] == target.capabilities, "another client on the same service learnt otherwise"
    assert wider(seen[-1], clients.open().capabilities).keys() <= wider(seen[-1], declared).keys()


# -- what is not declared -------------------------------------------------------------------------


def spying(target: Target, **claims: Any) -> tuple[Callable[[], Spy], list[Spy]]:
    """Return what makes the backend with other capabilities, and the spies above what it made."""
    spies: list[Spy] = []
    make = claiming(target, **claims)

    def spy() -> Spy:
        spies.append(Spy.above(make()))
        return spies[-1]

    return spy, spies


@clause("CP-2")
def test_a_listing_that_is_not_declared_is_refused_at_once(
    target: Target, clients: Clients
) -> None:
    make, spies = spying(target, scan=False)
    client = clients.open(make=make)

    with pytest.raises(UnsupportedError):
        client.scan()  # not only when somebody takes the first record of it

    assert [spy.calls for spy in spies] == [[]]


@clause("CP-2")
def test_an_expiry_that_is_not_declared_is_refused_at_once(target: Target, namespace: str) -> None:
    make, spies = spying(target, expiry_resolution=None)
    record = success(new_id(), 1)

    with ResultClient(make, url=target.url, namespace=namespace, expires=None) as client:
        uses: list[Callable[[], object]] = [
            lambda: client.store(record, expires=60),
            lambda: client.store_many([record], expires=0.5),
            lambda: client.encode(record, expires=60),
        ]
        for use in uses:
            with pytest.raises(UnsupportedError):
                use()
    by_default = ResultClient(make, url=target.url, namespace=namespace)
    with by_default, pytest.raises(UnsupportedError):
        by_default.store(record)

    assert [spy.calls for spy in spies] == [[], []]


@clause("CP-2")
def test_a_record_longer_than_declared_is_refused_at_once(target: Target, clients: Clients) -> None:
    make, spies = spying(target, max_record_bytes=2**16)
    client = clients.open(make=make)
    records = [success(new_id(), 1), success(new_id(), "x" * 2**16)]

    with pytest.raises(PayloadTooLargeError):
        client.store(records[1])
    with pytest.raises(PayloadTooLargeError):
        client.store_many(records)

    assert [spy.calls for spy in spies] == [[]]


AWKWARD_IDS = ("two words", "é", "日本", "🦀", "x" * 255, "~" * 200, "plain", " ", "a\u00a0b")
"""Ids that not every service can take as a key."""


@clause("CP-2")
@pytest.mark.parametrize("text", [True, False], ids=["any text", "ASCII only"])
def test_no_key_is_longer_or_stranger_than_declared(
    target: Target, clients: Clients, text: bool, capabilities: Capabilities
) -> None:
    longest = min(200, capabilities.max_key_bytes)
    text = text and capabilities.text_keys
    make = claiming(target, max_key_bytes=longest, text_keys=text)
    client = clients.open(make=make)
    records = [success(task_id, n) for n, task_id in enumerate(AWKWARD_IDS)]

    keys = [client.encode(record).key for record in records]
    client.store_many(records)

    assert [key for key in keys if len(key.encode()) > longest] == []
    if not text:
        assert [key for key in keys if not key.isascii() or not key.isprintable()] == []
        assert [key for key in keys if " " in key] == []
    assert len(set(keys)) == len(keys)
    found = [value_of(client.load(task_id)) for task_id in AWKWARD_IDS]
    assert found == list(range(len(AWKWARD_IDS)))


@clause("CP-2")
@pytest.mark.lacks("scan")
def test_the_hook_for_a_listing_lists_or_refuses(client: ResultClient, within: float) -> None:
    backend, record = client.backend, success(new_id(), 1)
    client.store(record)
    key = client.encode(record).key

    try:
        keys = list(backend.scan(key[:-1], within))
    except UnsupportedError:
        return
    assert key in keys, "a listing that is not declared is empty, as if nothing were stored"


@clause("CP-2")
@pytest.mark.lacks("push")
def test_the_hook_for_notifications_says_that_there_are_none(
    client: ResultClient, within: float, timing: Timing
) -> None:
    backend: Backend = client.backend
    began = clock.monotonic()

    listener = backend.listen(within)

    if listener is not None:  # it may look by other means, as long as nobody waits for ever
        listener.subscribe([client.encode(success(new_id(), 1)).key])
        listener.wait(timing.quiet)
        listener.close()
    took = clock.monotonic() - began
    assert took < within + timing.quiet, "it waited for notifications that do not come"
