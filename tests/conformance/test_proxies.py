"""Proxies before all servers of a service, also of one that tells its clients where to go."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from upshot.client import ResultClient
from upshot.errors import ServiceUnavailableError
from upshot.url import Url
from upshot_conformance.harness import Harness, NotApplicableError, UnavailableError
from upshot_conformance.harnesses.redis import renaming
from upshot_conformance.proxies import Proxies, readdressed
from upshot_conformance.records import new_id, success, value_of
from upshot_conformance.selection import Selector, Target

NEW = [("127.0.0.1", 5001), ("127.0.0.1", 5002), ("127.0.0.1", 5003)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("redis://h/0", "redis://127.0.0.1:5001/0"),
        ("a+b@dist://:p%40@h:7?x=a://b", "a+b@dist://:p%40@127.0.0.1:5001?x=a://b"),
        ("a://u:p@h,[::1]:8/x;y", "a://u:p@127.0.0.1:5001,127.0.0.1:5002/x;y"),
        ("a://h1,h2,h3,h4/x", "a://127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003/x"),
        ("a://", "a://127.0.0.1:5001"),
        ("a://u@/x?upshot_y=1", "a://u@127.0.0.1:5001/x?upshot_y=1"),
        ("a://u:p@h/x;a://v:q@h2,h3", "a://u:p@127.0.0.1:5001/x;a://v:q@127.0.0.1:5002,127.0.0.1:5003"),
    ],
)  # fmt: skip
def test_hosts_are_replaced_and_nothing_else(before: str, after: str) -> None:
    assert readdressed(before, NEW) == after


def test_a_url_that_cannot_be_changed_is_not_changed_wrongly() -> None:
    with pytest.raises(UnavailableError, match=r"a://u:\*\*\*@h1") as caught:
        readdressed("a://u:geheim@h1,u:geheim@h2/x", NEW)
    assert "geheim" not in str(caught.value)


def test_an_answer_of_redis_that_names_a_server_names_its_proxy() -> None:
    rename = renaming(Url.parse("redis+cluster://h"), {("127.0.0.1", 700): ("127.0.0.1", 51234)})

    assert rename(b"*2\r\n$9\r\n127.0.0.1\r\n:700\r\n") == b"*2\r\n$9\r\n127.0.0.1\r\n:51234\r\n"
    assert rename(b"$9\r\n127.0.0.1\r\n$3\r\n700\r\n") == b"$9\r\n127.0.0.1\r\n$5\r\n51234\r\n"
    assert rename(b"-MOVED 5 127.0.0.1:700\r\n") == b"-MOVED 5 127.0.0.1:51234\r\n"
    assert rename(b"-MOVED 5 127.0.0.1:7001\r\n") == b"-MOVED 5 127.0.0.1:7001\r\n"
    assert rename(b"$5\r\n:700,\r\n") == b"$5\r\n:700,\r\n"


def test_under_tls_nobody_can_rename() -> None:
    with pytest.raises(UnavailableError, match="TLS"):
        renaming(Url.parse("rediss+cluster://h"), {})


@contextlib.contextmanager
def opened(name: str) -> Generator[tuple[Target, Harness]]:
    with contextlib.ExitStack() as stack:
        (target,) = Selector(Path(), stack).select([name])
        harness = target.open_harness()
        assert harness
        yield target, stack.enter_context(contextlib.closing(harness))


@pytest.mark.parametrize("name", ["memcached", "mongo", "redis-cluster", "redis-sentinel"])
def test_no_client_finds_a_way_around_the_proxies(name: str) -> None:
    ids = [new_id() for _ in range(20)]
    with opened(name) as (target, harness), Proxies(target.text, harness) as line:
        through = replace(target, text=line.text)
        past = replace(target, text=line.direct)
        hasty = ResultClient(through.make, url=through.url, namespace="around", timeout=0.5)
        client = ResultClient(through.make, url=through.url, namespace="around")
        direct = ResultClient(past.make, url=past.url, namespace="around")
        with hasty, client, direct:
            client.store_many([success(each, each) for each in ids])
            assert value_of(hasty.load(ids[0])) == ids[0]
            assert [value_of(direct.load(each)) for each in ids] == ids
            assert line.connections
            line.cut()
            for each in ids[:3]:
                with pytest.raises(ServiceUnavailableError):
                    hasty.load(each)
            assert value_of(direct.load(ids[0])) == ids[0]
            line.heal()
            assert [value_of(client.load(each)) for each in ids] == ids


def test_of_a_file_there_is_no_line() -> None:
    with opened("sqlite") as (target, harness), pytest.raises(NotApplicableError):
        Proxies(target.text, harness)


@pytest.mark.parametrize("name", ["memcached", "redis"])
def test_a_harness_ends_and_freezes_what_was_started_for_it(name: str) -> None:
    with opened(name) as (target, harness):
        client = ResultClient(target.make, url=target.url, namespace="outage", timeout=3)
        with client:
            client.store(success("before", 1))
            harness.crash()
            with pytest.raises(ServiceUnavailableError):
                client.load("before")
            harness.recover()
            assert harness.raw_objects("outage") == set()
            client.store(success("after", 2))
            assert harness.raw_objects("outage")
            harness.freeze()
            with pytest.raises(ServiceUnavailableError):
                client.load("after")
            harness.thaw()
            assert value_of(client.load("after")) == 2


def test_a_harness_does_not_disturb_what_others_use() -> None:
    with opened("redis") as (target, harness):
        other = type(harness)(Url.parse(target.text.replace("/0", "/1")))
        with contextlib.closing(other), pytest.raises(UnavailableError):
            other.crash()
