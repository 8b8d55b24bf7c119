"""The RabbitMQ connections: their thread, deadlines, faults, confirms."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upshot import clock
from upshot.errors import ServiceRejectedError, ServiceUnavailableError
from upshot.retrying import translate
from upshot.url import Url
from upshot_backends.amqp.channel import Received
from upshot_backends.amqp.connection import AmqpConnection, Session
from upshot_backends.amqp.driver import (
    DRIVER_ERRORS,
    ConnectionLostError,
    NoAnswerError,
    RefusedForNowError,
)
from upshot_backends.amqp.io_thread import IoThread
from upshot_backends.amqp.publisher import Parcel
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers import RabbitMQServer

ConnectionOpener = Callable[..., AmqpConnection]
Eventually = Callable[[Callable[[], bool]], None]

_LATE = 3.0  # seconds that a call may exceed its timeout by, on a machine that is busy


@pytest.fixture
def name(connection: AmqpConnection, namespace: str) -> Iterator[str]:
    """A queue that is there."""

    async def declare(session: Session) -> None:
        channel = await session.channel()
        await channel.declare(namespace)
        channel.close()

    async def delete(session: Session) -> None:
        await (await session.channel()).delete(namespace)

    connection.call(declare, 10.0)
    yield namespace
    connection.call(delete, 10.0)


def publish(connection: AmqpConnection, *parcels: Parcel, timeout: float = 10.0) -> list[bool]:
    return connection.call(lambda session: session.publish(parcels), timeout)


def drain(connection: AmqpConnection, name: str) -> list[Received]:
    """Take everything out of a queue, a message at a time."""

    async def take(session: Session) -> list[Received]:
        channel = await session.channel()
        found: list[Received] = []
        while (received := await channel.get(name)) is not None:
            channel.ack(received.tag)
            found.append(received)
        await channel.sync()
        channel.close()
        return found

    return connection.call(take, 30.0)


async def _same(session: Session) -> Session:
    return session


def session_of(connection: AmqpConnection) -> Session:
    return connection.call(_same, 10.0)


def refuses(connection: AmqpConnection, name: str) -> bool:
    """Tell whether a message is not taken in a second."""
    try:
        publish(connection, parcel(name), timeout=1.0)
    except NoAnswerError:
        return True
    return False


def parcel(name: str, body: bytes = b"body", **more: Any) -> Parcel:
    return Parcel(queue=name, body=body, **more)


# -- what is sent arrives --------------------------------------------------------------------------


def test_a_parcel_arrives_as_it_was_sent(connection: AmqpConnection, name: str) -> None:
    headers = {"text": "ä" * 300, "bytes": b"\xff\0", "number": -(2**40), "yes": True}
    sent = parcel(name, bytes(range(256)), headers=headers, correlation_id="c", kind="k")

    assert publish(connection, sent) == [True]
    (found,) = drain(connection, name)
    assert found.body == sent.body
    assert dict(found.headers) == headers
    assert (found.correlation_id, found.kind, found.redelivered) == ("c", "k", False)


def test_a_batch_is_told_parcel_by_parcel_whether_its_queue_is_there(
    connection: AmqpConnection, name: str
) -> None:
    assert publish(connection) == []
    assert publish(connection, parcel(name), parcel(name + "-not"), parcel(name)) == [
        True,
        False,
        True,
    ]
    assert len(drain(connection, name)) == 2


def test_a_thousand_parcels_do_not_cost_a_thousand_round_trips(
    open_connection: ConnectionOpener, open_network: Callable[..., Any], name: str
) -> None:
    slow = open_network(delay=0.05)  # a thousand round trips would take fifty seconds
    connection = open_connection(slow.url)

    assert publish(connection, *[parcel(name)] * 1000, timeout=20.0) == [True] * 1000


def test_more_bytes_than_may_be_on_their_way_arrive_too(
    connection: AmqpConnection, name: str
) -> None:
    bodies = [bytes([number]) * 3 * 2**20 for number in range(10)]

    assert (
        publish(connection, *(parcel(name, body) for body in bodies), timeout=60.0) == [True] * 10
    )
    assert [found.body for found in drain(connection, name)] == bodies


def test_a_parcel_that_cannot_be_encoded_harms_no_other(
    connection: AmqpConnection, name: str
) -> None:
    with pytest.raises(Exception, match="float"):
        publish(connection, parcel(name), parcel(name, headers={"float": 1.5}))
    assert publish(connection, parcel(name, b"next")) == [True]
    assert drain(connection, name)[-1].body == b"next"


def test_sixteen_threads_share_a_connection(connection: AmqpConnection, name: str) -> None:
    results: list[list[bool]] = []

    def work(number: int) -> None:
        for turn in range(20):
            one = parcel(name, b"%d/%d" % (number, turn))
            results.append(publish(connection, one, parcel(name + "-not")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert results == [[True, False]] * 320
    bodies = {found.body for found in drain(connection, name)}
    assert bodies == {b"%d/%d" % (n, t) for n in range(16) for t in range(20)}


def test_a_consumer_hears_from_another_connection(
    connection: AmqpConnection, open_connection: ConnectionOpener, name: str
) -> None:
    heard: queue.SimpleQueue[Received] = queue.SimpleQueue()

    async def consume(session: Session) -> None:
        await (await session.channel()).consume(name, heard.put, no_ack=True)

    connection.call(consume, 10.0)
    publish(open_connection(), parcel(name, b"1"), parcel(name, b"2"))

    assert [heard.get(timeout=10.0).body for _ in range(2)] == [b"1", b"2"]


def test_a_consumer_whose_queue_is_deleted_ends_its_channel(
    connection: AmqpConnection, name: str
) -> None:
    ended: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    async def consume(session: Session) -> None:
        channel = await session.channel()
        channel.when_ended(ended.put)
        await channel.consume(name, lambda _: None)
        await (await session.channel()).delete(name)

    connection.call(consume, 10.0)
    assert isinstance(ended.get(timeout=10.0), RefusedForNowError)


def test_what_the_server_refuses_ends_one_channel_only(
    connection: AmqpConnection, name: str
) -> None:
    async def look(session: Session) -> int:
        bad, good = await session.channel(), await session.channel()
        with pytest.raises(RefusedForNowError, match="404"):
            await bad.declare(name + "-not", passive=True)
        assert isinstance(bad.ended, RefusedForNowError)
        return await good.declare(name, passive=True)

    assert connection.call(look, 10.0) == 0


# -- what goes wrong ends in time ------------------------------------------------------------------


@pytest.mark.parametrize("disposable", [False, True])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "open"])
def test_a_dead_network_ends_a_call_in_time(
    open_connection: ConnectionOpener, network: Any, name: str, warm: bool, disposable: bool
) -> None:
    connection = open_connection(network.url, disposable=disposable)
    if warm:
        publish(connection, parcel(name))
    network.die()
    began = clock.monotonic()

    with pytest.raises(NoAnswerError) as caught:
        publish(connection, parcel(name), timeout=0.4)
    assert 0.35 <= clock.monotonic() - began <= 0.4 + _LATE
    url = Url.parse("amqp://h")
    assert isinstance(translate(caught.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    network.revive()
    assert publish(connection, parcel(name), timeout=30.0) == [True]


def test_a_disposable_connection_that_was_silent_is_dropped(
    open_connection: ConnectionOpener, network: Any, name: str
) -> None:
    url = network.url
    kept, disposed = open_connection(url), open_connection(url, disposable=True)
    before = session_of(kept), session_of(disposed)
    network.die()
    for connection in (kept, disposed):
        with pytest.raises(NoAnswerError):
            publish(connection, parcel(name), timeout=0.3)
    network.revive()

    assert session_of(kept) is before[0]
    assert session_of(disposed) is not before[1]


def test_a_cut_connection_fails_what_is_pending_and_is_opened_again(
    open_connection: ConnectionOpener, network: Any, name: str
) -> None:
    connection = open_connection(network.url)
    before = session_of(connection)
    waiting = threading.Event()
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    async def wait(session: Session) -> None:
        ended = asyncio.Event()
        channel = await session.channel()
        channel.when_ended(lambda _: ended.set())
        waiting.set()
        await ended.wait()
        await channel.sync()

    def call() -> None:
        try:
            connection.call(wait, 60.0)
        except Exception as exc:
            failed.put(exc)

    threading.Thread(target=call).start()
    assert waiting.wait(10.0)
    network.cut()

    error = failed.get(timeout=10.0)
    assert isinstance(
        translate(error, DRIVER_ERRORS, Url.parse("amqp://h")), ServiceUnavailableError
    )
    assert publish(connection, parcel(name)) == [True]
    assert session_of(connection) is not before


def test_a_killed_server_is_found_again(
    fragile: RabbitMQServer, open_connection: ConnectionOpener, namespace: str
) -> None:
    connection = open_connection(fragile.url)

    async def declare(session: Session) -> int:
        return await (await session.channel()).declare(namespace)

    connection.call(declare, 10.0)
    publish(connection, parcel(namespace))
    fragile.write_down_queues()
    fragile.kill()
    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one depends on the moment
        publish(connection, parcel(namespace))
    url = Url.parse(fragile.url)
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceUnavailableError)
    fragile.restart()

    assert connection.call(declare, 30.0) == 1


def test_heartbeats_are_sent_while_every_other_thread_is_busy(
    open_connection: ConnectionOpener, network: Any, eventually: Eventually
) -> None:
    connection = open_connection(f"{network.url}?heartbeat=2")
    session_of(connection)

    eventually(lambda: network.heartbeats >= 3)  # nobody calls anything meanwhile


def test_a_server_without_memory_is_unavailable_until_it_has_some(
    fragile: RabbitMQServer,
    open_connection: ConnectionOpener,
    namespace: str,
    eventually: Eventually,
) -> None:
    connection = open_connection(fragile.url, disposable=True)

    async def declare(session: Session) -> int:
        return await (await session.channel()).declare(namespace)

    connection.call(declare, 10.0)
    fragile.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        eventually(lambda: refuses(connection, namespace))  # the alarm goes off within seconds
        other = open_connection(fragile.url)
        assert other.call(declare, 10.0) >= 0  # a connection that does not publish works
    finally:
        fragile.control("set_vm_memory_high_watermark", "0.4")

    assert publish(connection, parcel(namespace, b"after"), timeout=60.0) == [True]
    assert drain(connection, namespace)[-1].body == b"after"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x03\x00\x01\xff\xff\xff\xff",
        b"\x09\x00\x00\x00\x00\x00\x00\xce",
    ],
    ids=["a frame of four gigabytes", "an unknown kind"],
)
def test_a_frame_that_cannot_be_ends_the_connection_at_once(
    server: RabbitMQServer, open_connection: ConnectionOpener, namespace: str, rubbish: bytes
) -> None:
    url = Url.parse(server.url)
    ((host, port),) = url.hosts
    with Proxy(host, port or 0) as proxy:
        connection = open_connection(server.url.replace(f":{port}", f":{proxy.port}"))
        assert publish(connection, parcel(namespace)) == [False]
        session = session_of(connection)
        proxy.translate = lambda data: data + rubbish
        with contextlib.suppress(*DRIVER_ERRORS.transient):
            publish(connection, parcel(namespace))

        deadline = clock.Deadline(_LATE)
        while session.lost is None and not deadline.expired:
            clock.sleep(0.01)
        assert session.lost is not None
        proxy.translate = None
        assert publish(connection, parcel(namespace)) == [False]


# -- beginnings and ends ---------------------------------------------------------------------------


def test_close_frees_thread_and_descriptors_and_ends_what_waits(
    server: RabbitMQServer, eventually: Eventually
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    before = set(threading.enumerate())
    thread = IoThread()
    connection = AmqpConnection(Url.parse(server.url), thread)
    waiting = threading.Event()
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    async def wait(session: Session) -> None:
        await session.channel()
        waiting.set()
        await asyncio.sleep(60.0)

    def call() -> None:
        try:
            connection.call(wait, 60.0)
        except Exception as exc:
            failed.put(exc)

    caller = threading.Thread(target=call)
    caller.start()
    assert waiting.wait(10.0)
    thread.close()
    thread.close()
    caller.join()

    assert isinstance(failed.get(timeout=1.0), ConnectionLostError)
    eventually(lambda: set(threading.enumerate()) <= before)
    eventually(lambda: len(os.listdir("/proc/self/fd")) == descriptors)
    with pytest.raises(ConnectionLostError):
        publish(connection, parcel("q"))


@pytest.mark.parametrize("tls", [False, True], ids=["handshake", "tls"])
def test_closing_while_a_connection_is_being_opened_leaves_nothing(
    open_network: Callable[..., Any], eventually: Eventually, tls: bool
) -> None:
    network = open_network()
    network.die()
    descriptors = len(os.listdir("/proc/self/fd"))
    before = set(threading.enumerate())
    thread = IoThread()
    url = network.url.replace("amqp:", "amqps:") if tls else network.url
    connection = AmqpConnection(Url.parse(url), thread)
    with pytest.raises(NoAnswerError):
        connection.call(_same, 0.3)  # the opening goes on, for others that may wait for it
    thread.close()
    network.close()

    eventually(lambda: set(threading.enumerate()) <= before)
    eventually(lambda: len(os.listdir("/proc/self/fd")) < descriptors)


def test_a_dead_network_does_not_hold_up_a_close(
    server: RabbitMQServer, open_network: Callable[..., Any]
) -> None:
    network = open_network()
    thread = IoThread()
    session_of(AmqpConnection(Url.parse(network.url), thread))
    network.die()
    began = clock.monotonic()

    thread.close()
    assert clock.monotonic() - began < 5.0


async def _answer() -> str:
    return "answer"


def _open_loops() -> int:
    """Return how many event loops are open. Other descriptors may be those of other threads."""
    kinds: list[str] = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own, or closed by now
            kinds.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return kinds.count("anon_inode:[eventpoll]")


def test_a_thread_that_could_not_be_started_is_started_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = IoThread()
    loops = _open_loops()
    try:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="start new"):
            thread.run(_answer, 10.0)
        monkeypatch.undo()

        assert _open_loops() <= loops  # those of earlier tests may be closing still
        assert thread.run(_answer, 10.0) == "answer"
    finally:
        thread.close()


def test_an_interrupt_just_before_the_loop_is_woken_does_not_keep_later_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strike(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    thread = IoThread()
    try:
        thread.run(_answer, 10.0)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "call_soon_threadsafe", strike)
        with pytest.raises(KeyboardInterrupt):
            thread.run(_answer, 10.0)

        assert thread.run(_answer, 10.0) == "answer"
    finally:
        thread.close()


def test_a_forked_child_disturbs_nothing(connection: AmqpConnection, name: str) -> None:
    session = session_of(connection)
    pid = os.fork()
    if pid == 0:
        del session
        os._exit(0)
    os.waitpid(pid, 0)

    assert publish(connection, parcel(name)) == [True]
    assert session_of(connection) is session


def test_an_interpreter_ends_quickly_and_silently_with_everything_open(
    server: RabbitMQServer,
) -> None:
    program = """
        import os, sys, threading
        from upshot.url import Url
        from upshot_backends.amqp.connection import AmqpConnection
        from upshot_backends.amqp.io_thread import IoThread

        connection = AmqpConnection(Url.parse(sys.argv[1]), IoThread())

        async def forever(session):
            await session.channel()
            ready.set()
            await never.wait()

        async def same(session):
            return session

        import asyncio
        ready, never = threading.Event(), asyncio.Event()
        call = lambda: connection.call(forever, 600.0)
        threading.Thread(target=call, daemon=True).start()
        assert ready.wait(30.0)
        session = connection.call(same, 30.0)
        if os.fork() == 0:
            sys.exit(0)
        assert os.wait()[1] == 0
        assert connection.call(same, 30.0) is session
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_interrupted_caller_takes_its_operation_along(
    connection: AmqpConnection, eventually: Eventually
) -> None:
    cancelled = threading.Event()

    async def wait(session: Session) -> None:
        try:
            await asyncio.sleep(60.0)
        finally:
            cancelled.set()

    with pytest.raises(NoAnswerError):
        connection.call(wait, 0.2)
    assert cancelled.wait(10.0)


def test_a_wrong_password_is_refused_for_good_and_never_shown(
    server: RabbitMQServer, open_connection: ConnectionOpener
) -> None:
    password = "s3cret-w0rd"
    url = Url.parse(f"amqp://upshot:{password}@127.0.0.1:{server.port}//")
    connection = AmqpConnection(url, IoThread())

    with pytest.raises(Exception) as refused:  # noqa: PT011 - `translate` says what it means
        session_of(connection)
    error = translate(refused.value, DRIVER_ERRORS, url)
    assert isinstance(error, ServiceRejectedError)
    assert password not in f"{error} {error!r} {refused.value!r} {url} {connection!r}"


def test_an_unknown_virtual_host_is_refused_for_good(server: RabbitMQServer) -> None:
    url = Url.parse(server.url.removesuffix("//") + "/nowhere")
    thread = IoThread()

    with pytest.raises(Exception) as refused:  # noqa: PT011 - `translate` says what it means
        session_of(AmqpConnection(url, thread))
    assert isinstance(translate(refused.value, DRIVER_ERRORS, url), ServiceRejectedError)
    thread.close()


def test_the_next_host_is_tried(server: RabbitMQServer, open_connection: ConnectionOpener) -> None:
    connection = open_connection(server.url.replace("@", "@127.0.0.1:1,"))

    assert session_of(connection).lost is None
