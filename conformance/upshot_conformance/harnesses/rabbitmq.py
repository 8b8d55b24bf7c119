"""Looks into a RabbitMQ server through its HTTP API, and into the mailboxes of this process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast
from urllib.parse import quote, unquote, urlsplit

from upshot import clock
from upshot.url import Url
from upshot_backends.amqp import office
from upshot_backends.amqp.mailbox import Mailbox
from upshot_conformance.harness import UnavailableError
from upshot_conformance.harnesses.private import PrivateHarness, PrivateService, running

__all__ = ["RabbitMQHarness"]

_API: Final = "UPSHOT_CONFORMANCE_RABBITMQ_API"
"""The environment variable with the API's URL, as `http://user:password@host:15672`."""

_API_PORT: Final = 15672
_PATIENCE: Final = 10.0  # seconds for one request
_QUEUE: Final = "queue "
_RECORD: Final = "record "
_ESTABLISHED: Final = "01"


class _Slot(Protocol):
    body: bytes
    barrier: int
    expires_at: float


class RabbitMQHarness(PrivateHarness):
    """A server object is a queue, or a record that a queue of this process has brought.

    Records are carried: what has arrived is nowhere but in the memory of the process. The server
    is asked through its management plug-in, as AMQP cannot list queues. Without the environment
    variable `UPSHOT_CONFORMANCE_RABBITMQ_API` it is looked for on the host of the URL, at port
    15672 and with the same user and password.
    """

    scheme: ClassVar[str] = "rpc"
    default_port: ClassVar[int] = 5672

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        host = url.hosts[0][0] if url.hosts else "localhost"
        api = os.environ.get(_API) or f"http://{host}:{_API_PORT}"
        parts = urlsplit(api)
        self._api = f"{parts.scheme}://{parts.hostname}:{parts.port or _API_PORT}/api"
        user = unquote(parts.username or url.username or "guest")
        password = unquote(parts.password or url.password or "guest")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}
        self._queues = "/queues/" + quote(unquote(url.path[1:]) or "/", safe="")

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a private RabbitMQ, and note where its management plug-in answers."""
        from upshot_conformance.servers import RabbitMQServer  # only who starts one

        before = os.environ.get(_API)
        with super().start() as url:
            service = running(url)
            assert isinstance(service, RabbitMQServer), "`make_service` made it"
            os.environ[_API] = service.api_url  # for the processes of pytest-xdist too
            try:
                yield url
            finally:
                if before is None:
                    del os.environ[_API]
                else:
                    os.environ[_API] = before

    @classmethod
    def make_service(cls) -> PrivateService:
        """Return a private RabbitMQ with its management plug-in."""
        from upshot_conformance.servers import RabbitMQServer  # only who starts one

        return RabbitMQServer(management=True)

    def raw_objects(self, namespace: str) -> set[str]:
        names = {_QUEUE + queue["name"] for queue in self._ask(self._queues + "?columns=name")}
        records = {_RECORD + key for mailbox in _mailboxes() for key in _slots(mailbox)}
        return {name for name in names | records if namespace in name}

    def purge(self, namespace: str) -> None:
        for name in self.raw_objects(namespace):
            if name.startswith(_QUEUE):
                queue = quote(name.removeprefix(_QUEUE), safe="")
                self._ask(f"{self._queues}/{queue}", method="DELETE")
            for mailbox in _mailboxes():
                mailbox.delete([name.removeprefix(_RECORD)])

    def server_version(self) -> str:
        return f"RabbitMQ {self._ask('/overview?columns=rabbitmq_version')['rabbitmq_version']}"

    def read_raw(self, name: str) -> bytes:
        slot = _slot(name)
        if slot is None:
            raise UnavailableError(f"{name!r} cannot be read without taking something out of it")
        return b"%d " % slot.barrier + slot.body

    def ttl(self, name: str) -> float | None:
        slot = _slot(name)
        if slot is None:  # the server counts from the queue's last use, and does not tell when
            queue = quote(name.removeprefix(_QUEUE), safe="")
            arguments = self._ask(f"{self._queues}/{queue}?columns=arguments")["arguments"]
            idle: int | None = arguments.get("x-expires")
            return None if idle is None else idle / 1000
        return None if slot.expires_at == float("inf") else slot.expires_at - clock.monotonic()

    def subscriptions(self, namespace: str) -> set[str]:
        found: set[str] = set()
        for mailbox in _mailboxes():
            for listener in list(cast("set[object]", vars(mailbox)["_listeners"])):
                found |= {key for key in list(vars(listener)["_keys"]) if namespace in key}
        return found

    def connections(self) -> int:
        """Count what the kernel has open: the plug-in hears of a connection seconds later."""
        host, port = self.url.hosts[0]
        table = Path("/proc/net/tcp")
        if host != "127.0.0.1" or not table.exists():
            raise UnavailableError("only connections to a server on this machine can be counted")
        number = int.from_bytes(socket.inet_aton(host), "little")
        local = f"{number:08X}:{port or self.default_port:04X}"
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
        return sum(row[1] == local and row[3] == _ESTABLISHED for row in rows)

    def _ask(self, path: str, *, method: str = "GET") -> Any:
        request = urllib.request.Request(self._api + path, headers=self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                text = answer.read()
        except OSError as exc:
            raise UnavailableError(f"no management plug-in answers at {self._api}: {exc}") from exc
        return json.loads(text) if text else None


def _mailboxes() -> list[Mailbox]:
    # Behind the backend's back, as every harness; a module has no private parts for vars().
    offices = cast("Mapping[Any, office.Office]", vars(vars(office)["_OFFICES"])["open"])
    return [each.mailbox for each in list(offices.values())]


def _slots(mailbox: Mailbox) -> Mapping[str, _Slot]:
    return dict(cast("Mapping[str, _Slot]", vars(mailbox)["_slots"]))


def _slot(name: str) -> _Slot | None:
    """Return the record of a name that `raw_objects` has given; None for a queue."""
    if not name.startswith(_RECORD):
        return None
    key = name.removeprefix(_RECORD)
    return next(slots[key] for slots in map(_slots, _mailboxes()) if key in slots)
