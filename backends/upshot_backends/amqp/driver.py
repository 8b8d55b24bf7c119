"""Where upshot meets pika: its connections, made from a URL, opened in an event loop; its errors.

Of pika's interfaces only the asynchronous one can serve several threads: its `BlockingConnection`
belongs to one thread, answers heartbeats only while that thread is inside pika, and hangs for as
long as the server blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from urllib.parse import unquote, urlencode

import pika  # type: ignore[import-untyped]
from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection  # type: ignore[import-untyped]

from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_backends.amqp.frames import CONFIRM, confirm_at

__all__ = [
    "DRIVER_ERRORS",
    "NOT_FOUND",
    "ConnectionLostError",
    "NoAnswerError",
    "RefusedForNowError",
    "abort",
    "cancel",
    "connect",
    "driver_options",
    "drop",
    "emit",
    "longest_body",
    "refusal",
]

_GUEST: Final = "guest"  # user and password of a new server
_IGNORED: Final = frozenset({"blocked_connection_timeout", "connection_attempts", "retry_delay"})
_HEARTBEAT: Final = 15  # seconds; RabbitMQ's own 60 would notice a dead peer after two minutes
_CONNECT: Final = 5.0  # seconds for TCP, and
_HANDSHAKE: Final = 10.0  # for all of the opening; then the next host's turn comes
_LONGEST_FRAME: Final = 2**24
"""Bytes. What was agreed is 128 KiB at most, but RabbitMQ does not divide a message's headers, to
which it adds its own."""

NOT_FOUND: Final = 404
"""AMQP's reply code where there is no such queue."""

_FOR_NOW: Final = frozenset({NOT_FOUND, 405, 506, 541})
"""Reply codes of what may end by itself: a queue that is gone is declared anew, one that is locked
belongs to a connection that the server has not yet given up, and it may lack resources."""

# pika tells its own story at ERROR level, with tracebacks, whenever a server goes away. All of it
# is raised here too, and told once by whoever can say what it means.
_logger = logging.getLogger("pika")
if _logger.level == logging.NOTSET:
    _logger.setLevel(logging.CRITICAL)


class _Connection(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """pika's connection, with four of its ways mended.

    It sends together what is written in one turn of the loop. pika makes a system call for each
    frame, and a message is three frames: most of the cost of publishing many. And it sends at
    once, where pika would ask the selector first whether it may.

    It tells whoever publishes of confirms straight away, see `confirms`. In pika, each passes five
    objects and a search for callbacks.

    It takes a message whose properties pika cannot decode for one that has none. Whoever may
    publish can send one: with a timestamp after the year 9999, or tables nested a thousand deep.
    pika would give up the connection, and the server deliver the message again to the next one,
    for ever.

    It ends at the beginning of a frame that is longer than any can be. pika would take all that
    comes for a part of it, and hear nothing until heartbeats are missed.
    """

    _unsent: list[bytes] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self.confirms: dict[int, Callable[[int, bool], None]] = {}
        """By a channel's number, what takes its confirms: the number of a message, and whether
        all before it are meant too."""
        super().__init__(*args, **options)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._unsent is None:
            self._unsent = []
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, None
        connection: Any = self
        transport = connection._transport
        if not unsent or transport is None:
            return
        rest = b"".join(unsent)
        if type(transport._sock) is socket.socket and not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):  # if it lasts, pika meets it too
                rest = rest[transport._sock.send(rest) :]
        if rest:
            base: Any = AsyncioConnection
            base._adapter_emit_data(connection, rest)

    def _on_data_available(self, data_in: bytes) -> None:
        base: Any = AsyncioConnection
        connection: Any = self
        position = 0
        if self.confirms and not connection._frame_buffer:
            while (confirm := confirm_at(data_in, position)) is not None:
                take = self.confirms.get(confirm.channel)
                if take is None:
                    break
                position += CONFIRM
                connection.bytes_received += CONFIRM
                take(confirm.tag, confirm.multiple)
        if position < len(data_in):
            base._on_data_available(connection, data_in[position:])

    def _read_frame(self) -> Any:
        parent: Any = super()
        buffer: bytes = vars(self)["_frame_buffer"]
        try:
            found = parent._read_frame()
        except Exception:  # whatever a decoder raises for what it was not made for
            kind, number, size = struct.unpack_from(">BHL", buffer)
            if kind != spec.FRAME_HEADER:
                raise
            body_size = struct.unpack_from(">HHQ", buffer, spec.FRAME_HEADER_SIZE)[2]
            end = spec.FRAME_HEADER_SIZE + size + spec.FRAME_END_SIZE
            return end, frame.Header(number, body_size, spec.BasicProperties())
        if found[1] is None and len(buffer) >= spec.FRAME_HEADER_SIZE:
            size = struct.unpack_from(">BHL", buffer)[2]
            if size > _LONGEST_FRAME and not buffer.startswith(b"AMQP"):
                raise exceptions.InvalidFrameError(f"a frame of {size} bytes is to come")
        return found


class ConnectionLostError(Exception):
    """The connection went away, or could not be opened, with what was asked for unanswered."""


class NoAnswerError(Exception):
    """The server did not answer in time: it is frozen, or takes no messages at the moment."""


class RefusedForNowError(Exception):
    """The server refused, for a reason that may go away.

    Attributes:
        code: AMQP's reply code, such as 404; 0 where there is none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


DRIVER_ERRORS: Final = DriverErrors(
    transient=(
        exceptions.AMQPConnectionError,
        exceptions.ChannelWrongStateError,
        ConnectionLostError,
        NoAnswerError,
        RefusedForNowError,
        OSError,
    ),
    permanent=(
        exceptions.AMQPError,
        exceptions.AuthenticationError,
        exceptions.IncompatibleProtocolError,
        exceptions.ProbableAccessDeniedError,
        exceptions.ProbableAuthenticationError,
        ssl.SSLCertVerificationError,
    ),
)


def driver_options(url: Url) -> list[Any]:
    """Return pika's parameters for each host of the URL.

    Raises:
        UrlError: pika does not take a parameter.
    """
    scheme = "amqps" if url.scheme.endswith("amqps") else "amqp"
    query = urlencode([(name, value) for name, value in url.query if name not in _IGNORED])
    try:
        found = [_parameters(scheme, query, url) for _ in url.hosts or [()]]
    except Exception as exc:
        # Among others ValueError, SyntaxError and OSError: pika evaluates Python literals and reads
        # certificates here. Their messages may quote what the parameter holds.
        names = ", ".join(sorted({name for name, _ in url.query}))
        raise UrlError(
            f"{url}: pika does not take one of the parameters {names}: "
            f"{type(exc).__name__}: {url.scrub(str(exc))}"
        ) from exc
    for options, (host, port) in zip(found, url.hosts, strict=False):
        options.host = host
        options.port = port or options.port
    return found


async def connect(options: Sequence[Any], heartbeat: int | None) -> Any:
    """Open a connection to the first host that lets us in.

    Args:
        options: what `driver_options` returned.
        heartbeat: seconds after which either side takes a silent other one for dead, if the
            options do not ask for less; None for what they say.

    Raises:
        AMQPError, OSError: what the last host failed with.
    """
    options = [copy.copy(one) for one in options]
    for one in options:
        one.heartbeat = min(one.heartbeat, heartbeat or one.heartbeat)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    workflow = cast("Any", _Connection).create_connection(
        options, on_done=ended.set_result, custom_ioloop=loop
    )
    try:
        result = await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not ended.done():
            _give_up(workflow)
        result = await ended
        if not isinstance(result, Exception):
            await drop(result, ConnectionLostError("nobody waits for this connection any more"))
        raise
    if isinstance(result, Exception):
        raise _cause(result)
    return result


def emit(channel: Any, frames: bytes) -> None:
    """Send frames that were made for a channel.

    Raises:
        AMQPError: the channel is closed, or about to be.
    """
    channel._raise_if_not_open()
    connection: Any = channel.connection
    connection.bytes_sent += len(frames)
    connection._adapter_emit_data(frames)


def cancel(channel: Any, tag: str, *, callback: Callable[[Any], object]) -> None:
    """End a consumer, which gets what is on its way to it.

    pika would reject that, and the server count a delivery that nobody has had.
    """
    channel.basic_cancel(tag, callback=callback)
    channel._cancelled.discard(tag)


def longest_body(channel: Any) -> int:
    """Return how many bytes of a message's body one frame may have."""
    return int(channel.connection._body_max_length)


def abort(connection: Any, why: Exception) -> None:
    """Drop a connection without a farewell that the server would have to answer."""
    if not connection.is_closed:
        connection._terminate_stream(why)  # pika has no public way


async def drop(connection: Any, why: Exception) -> None:
    """Do what `abort` does, and return when nothing of the connection is left."""
    abort(connection, why)
    while not connection.is_closed:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the socket is closed after the state has changed


def refusal(exc: Exception) -> Exception:
    """Return what to raise for the reason that pika gives for the end of a channel."""
    if isinstance(exc, exceptions.ChannelClosedByBroker) and exc.reply_code in _FOR_NOW:
        error: Exception = RefusedForNowError(f"{exc.reply_code}: {exc.reply_text}", exc.reply_code)
        error.__cause__ = exc
        return error
    return exc


def _parameters(scheme: str, query: str, url: Url) -> Any:
    options: Any = pika.URLParameters(f"{scheme}://localhost/?{query}")
    options.virtual_host = unquote(url.path[1:]) or "/"  # kombu's "//" is the virtual host "/" too
    options.credentials = pika.PlainCredentials(
        url.username or _GUEST, _GUEST if url.password is None else url.password
    )
    given = {name for name, _ in url.query}
    defaults = {
        "heartbeat": _HEARTBEAT,
        "socket_timeout": _CONNECT,
        "stack_timeout": _HANDSHAKE,
    }
    for name, value in defaults.items():
        if name not in given:
            setattr(options, name, value)
    return options


def _give_up(workflow: Any) -> None:
    """Make pika end its attempts, and report that."""
    connector: Any = workflow._connector
    if connector is None or connector._amqp_conn is None:
        workflow.abort()
        return
    # During the handshake `abort` would fail an assertion of its own, and leave the socket open.
    workflow._state = workflow._STATE_ABORTING
    connector._state = connector._STATE_ABORTING
    why = ConnectionLostError("nobody waits for this connection any more")
    abort(connector._amqp_conn, why)


def _cause(result: Any) -> Exception:
    """Return what a connection attempt failed with, out of pika's two wrappings."""
    inner = getattr(result, "exceptions", None)
    if inner:  # one for each host and address
        result = inner[-1]
    result = getattr(result, "exception", result)
    if exceptions.StreamLostError.__name__ in str(result):
        # pika guesses from the moment of the loss that the server did not like us. RabbitMQ says
        # so before it closes.
        return ConnectionLostError(str(result))
    if isinstance(result, exceptions.AMQPError | OSError):
        return result
    return ConnectionLostError(str(result) or type(result).__name__)
