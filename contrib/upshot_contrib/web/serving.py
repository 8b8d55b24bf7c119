"""The socket that the page listens on, and the server behind it."""

from __future__ import annotations

import logging
import socket
from asyncio import CancelledError
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import FrameType
from typing import Final, final

import uvicorn
from starlette.types import ASGIApp

from upshot.errors import ConfigError
from upshot_contrib.web.guarding import Hosts

__all__ = ["Address", "serve"]

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_BACKLOG: Final = 128  # connections that wait to be accepted
_GRACE: Final = 3  # seconds that answers have to end when the server stops


@final
@dataclass(frozen=True, slots=True)
class Address:
    """Where the page listens.

    Attributes:
        name: what was asked for.
        socket: it listens already.
    """

    name: str
    socket: socket.socket

    @classmethod
    @contextmanager
    def bound(cls, host: str, port: int) -> Generator[Address]:
        """Listen there inside the block.

        Args:
            host: a name or an address of this machine.
            port: 0 for any that is free.

        Raises:
            ConfigError: there is no such host, or the port is taken or not allowed.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, where = found[0]
            listening = socket.create_server(where[:2], family=family, backlog=_BACKLOG)
        except OSError as exc:
            raise ConfigError(
                f"nothing can listen on port {port} of {host!r:.100}: {exc.strerror or exc}; "
                "--port 0 takes any that is free"
            ) from exc
        with listening:
            yield cls(host, listening)

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address that the name stands for."""
        return ip_address(self.socket.getsockname()[0])

    @property
    def port(self) -> int:
        """The port that it listens on, never 0."""
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def link(self) -> str:
        """What to open in a browser of this machine."""
        ip = self.ip
        if ip.is_unspecified:
            ip = ip_address("::1" if ip.version == 6 else "127.0.0.1")
        host = f"[{ip}]" if ip.version == 6 else str(ip)
        return f"http://{host}:{self.port}/"

    def require_token(self, token: str | None) -> None:
        """Refuse to be seen by other machines without a token.

        Raises:
            ConfigError: that is the case.
        """
        if token is None and not self.ip.is_loopback:
            raise ConfigError(
                f"{self.name} can be reached from other machines, and results are not for "
                "everybody: give --new-token, or set web_token (UPSHOT_WEB_TOKEN); or leave out "
                "--host"
            )

    def hosts(self, names: Collection[str]) -> Hosts:
        """Return by which names browsers may ask: this machine's own, this one, and `names`."""
        return Hosts({*_LOOPBACK_NAMES, self.name, str(self.ip), *names}, self.ip.is_unspecified)


@final
class _Server(uvicorn.Server):
    """Ends the streams of events before it waits for answers to end: they have none."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], object]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        if not self.should_exit:  # a second one would only be told of what it has cut short
            super().handle_exit(sig, frame)


def serve(page: ASGIApp, address: Address, *, stopping: Callable[[], object]) -> None:
    """Serve `page` until a signal says to stop; `stopping` is called then, in the main thread.

    Requests are not logged: a link may hold the token.
    """
    config = uvicorn.Config(
        page,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_worth_telling)
    _Server(config, stopping).run(sockets=[address.socket])


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Tell whether it is more than that an answer to a client that stalls was cut short."""
    return record.exc_info is None or record.exc_info[0] is not CancelledError
