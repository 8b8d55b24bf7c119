"""Reads records in a process that notes what reading them does: imports, calls, files.

Audit hooks cannot be taken away again, so this runs in a second process (`elsewhere`).
"""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from upshot.client import ResultClient
from upshot.origin import Origin
from upshot.result import AsyncResult
from upshot_conformance.records import CODECS
from upshot_conformance.suite.forge import inject_many

__all__ = ["Tripwire", "read_watched"]

_WATCHED: Final = frozenset(
    {
        *("import", "exec", "code.__new__", "pickle.find_class", "marshal.loads"),
        *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"),
        *("os.mkdir", "os.remove", "os.rename", "os.putenv", "shutil.rmtree", "ctypes.dlopen"),
    }
)
"""Names of the audit events that say that data did something; `open` counts if it may write.

`compile` is not among them: alone it runs nothing, and a driver may read its own files so, as
`dbm.dumb` does with `ast.literal_eval`. What is compiled to be run is heard of as `exec`."""

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_READER: Final = "MainThread"  # whose doings count; a driver's own threads do not


class Tripwire(Exception):  # noqa: N818 - it is no error; it tells that it was touched
    """An exception class that this process has loaded, and that notes whatever runs of it."""

    touched: Final[list[str]] = []

    def __new__(cls, *args: object) -> Tripwire:
        cls.touched.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        self.touched.append("__init__")
        super().__init__(*args)

    def __setattr__(self, name: str, value: object) -> None:
        self.touched.append("__setattr__")
        super().__setattr__(name, value)

    def __setstate__(self, state: object) -> None:
        self.touched.append("__setstate__")

    @property
    def path(self) -> str:
        """Set by who trusts the names of attributes."""
        return ""

    @path.setter
    def path(self, value: str) -> None:
        self.touched.append("path")


class _Watch:
    """Notes the audit events of this process while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        counts = event in _WATCHED or (event == "open" and _may_write(*args))
        if counts and threading.current_thread().name == _READER:
            self.seen.append(f"{event} {args[:1]!r:.200}")


def _may_write(path: object, mode: str | None, flags: int) -> bool:
    return bool(flags & _WRITES) or bool(set(mode or "") & set("wax+"))


def read_watched(
    client: ResultClient, harmless: Mapping[str, str], hostile: Mapping[str, str]
) -> dict[str, Any]:
    """Store bytes where records belong, read them in every way, and tell what that did.

    Args:
        client: of this process.
        harmless: base64 of bytes by id; read first, so that all is imported that reading needs.
        hostile: the same, of what is read under watch.

    Returns:
        `found` by id: what each way to read it gave; `events`: what the audit hook saw;
        `imported`: the modules that are new; `touched`: what ran of `Tripwire`.
    """
    origin = Origin(client, CODECS)
    texts = {**harmless, **hostile}
    inject_many(client, {task_id: base64.b64decode(text) for task_id, text in texts.items()})
    for task_id in [*harmless, *harmless]:
        _read(client, AsyncResult(task_id, origin))
    modules, watch = set(sys.modules), _Watch()
    watch.on = True
    found = {task_id: _read(client, AsyncResult(task_id, origin)) for task_id in hostile}
    watch.on = False
    client.forget([*harmless, *hostile])
    return {
        "found": found,
        "events": watch.seen,
        "imported": sorted(set(sys.modules) - modules),
        "touched": Tripwire.touched,
    }


def _read(client: ResultClient, handle: AsyncResult[Any]) -> list[str]:
    """Read one id in every way, without waiting, as it is there; return what each way gave."""
    ways: tuple[Callable[[], object], ...] = (
        lambda: client.load_many([handle.id]),
        lambda: client.wait(handle.id, timeout=0),
        lambda: handle.get(timeout=0),
        lambda: handle.result,
        lambda: handle.info,
        lambda: handle.traceback,
    )
    return [_outcome(way) for way in ways]


def _outcome(way: Callable[[], object]) -> str:
    try:
        return type(way()).__name__
    except Exception as exc:  # which one, the test judges
        return type(exc).__name__
