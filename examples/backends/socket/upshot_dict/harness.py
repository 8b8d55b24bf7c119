"""How the conformance suite starts a dict behind a socket, and looks into it."""

from __future__ import annotations

import sys
from typing import ClassVar

from upshot_conformance.harnesses.private import PrivateHarness, PrivateService
from upshot_conformance.servers import Server

from . import server
from .connection import Connection, Message

__all__ = ["DictHarness", "DictServer"]

_PATIENCE = 10.0  # seconds for one answer


class DictServer(Server):
    """A private server, on a port that is free."""

    name: ClassVar[str] = "dict"
    programs: ClassVar[tuple[str, ...]] = (sys.executable,)
    how_to_install: ClassVar[str] = "it is a part of upshot-dict"
    drops_root: ClassVar[bool] = False  # another account may not be allowed to read our files

    @property
    def url(self) -> str:
        return f"dict://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [sys.executable, str(server.__file__), str(self.port)]

    def _answers(self) -> bool:
        with self._connect():
            return True


class DictHarness(PrivateHarness):
    """A server object is a key of the dict; a subscription is a key that somebody listens to."""

    scheme: ClassVar[str] = "dict"
    default_port: ClassVar[int] = server.DEFAULT_PORT

    @classmethod
    def make_service(cls) -> PrivateService:
        return DictServer()

    def connect(self) -> None:
        host, port = self.url.hosts[0]
        self._connection = Connection((host, port or self.default_port), _PATIENCE)

    def close(self) -> None:
        self._connection.close()

    def raw_objects(self, namespace: str) -> set[str]:
        return {name for name in self._look()["records"] if namespace in name}

    def purge(self, namespace: str) -> None:
        names = list(self.raw_objects(namespace))
        self._connection.ask({"do": "delete", "keys": names}, _PATIENCE)

    def server_version(self) -> str:
        return f"a dict of Python {sys.version.split()[0]}"

    def read_raw(self, name: str) -> bytes:
        barrier, _, body = self._look()["records"][name]
        return f"{barrier} {body}".encode()

    def ttl(self, name: str) -> float | None:
        left: float | None = self._look()["records"][name][1]
        return left

    def subscriptions(self, namespace: str) -> set[str]:
        return {name for name in self._look()["listened"] if namespace in name}

    def connections(self) -> int:
        return int(self._look()["clients"]) - 1  # ours is one of them

    def _look(self) -> Message:
        return self._connection.ask({"do": "look"}, _PATIENCE)
