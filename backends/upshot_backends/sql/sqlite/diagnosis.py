"""What `upshot doctor` looks at where an SQLite file is, or will be."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import ClassVar, Final, final
from urllib.parse import quote

from upshot.errors import ServiceRejectedError
from upshot.finding import Advice, Finding, Level, size
from upshot.url import Url
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.diagnosis import Diagnosis
from upshot_backends.sql.sqlite.connection import SqliteDatabase

__all__ = ["SqliteDiagnosis"]

_ROOM: Final = 200 * 2**20  # bytes; the log alone may take some ten MiB under load
_NETWORK: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"}
)
_MOUNTS: Final = Path("/proc/self/mounts")


@final
class SqliteDiagnosis(Diagnosis):
    """The file, the file system that it lies on, and the room that is left there.

    Args:
        database: the file.
    """

    advice: ClassVar[Advice] = (
        (
            ("readonly database", "permission denied", "read-only file system"),
            (
                "let this user write to the file and to its folder, where the log lies; or name "
                "another file in the URL"
            ),
        ),
        (("unable to open", "no such file"), "make the folder, or name another file in the URL"),
        (("is full", "no space left"), "make room on the disk"),
        (("not a database", "malformed"), "name another file in the URL: this one holds no SQLite"),
        (("locked", "busy"), "see who holds the file open in a transaction: fuser FILE"),
    )

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._path = database.path

    def diagnose(self, timeout: float) -> list[Finding]:
        """Look at the file; it is not made."""
        return [
            Finding(Level.OK, f"SQLite {sqlite3.sqlite_version}, {self._state()}"),
            *self._rights(),
            *self._file_system(),
            *self._room(),
            Finding(
                Level.NOTE,
                "only processes of this machine share it",
                "workers elsewhere need a service that has a server, such as PostgreSQL or Redis",
            ),
        ]

    @contextlib.contextmanager
    def rehearsal(self, timeout: float) -> Generator[Url | None]:
        """See `upshot.backend.Rehearsing`: a file in a folder of its own, beside where it lies."""
        if self._exists and self._database.look(timeout, self._has_tables):
            yield None
            return
        with self._database.translating():
            folder = tempfile.mkdtemp(prefix=".upshot-doctor-", dir=self._folder())
        try:
            yield self._database.url.varied(path="/" + quote(f"{folder}/db"))
        finally:
            with self._database.translating():
                shutil.rmtree(folder)

    @property
    def _exists(self) -> bool:
        return os.path.exists(self._path)

    def _has_tables(self, cursor: Cursor) -> bool:
        table = self._database.schema.schema.name
        cursor.execute("SELECT name FROM sqlite_master WHERE name = :name", {"name": table})
        return bool(cursor.fetchall())

    def _state(self) -> str:
        if not self._exists:
            return f"the file {self._path}, which is not there yet"
        return f"the file {self._path} of {size(os.path.getsize(self._path))}"

    def _folder(self) -> str:
        """Return the folder that it lies in, or that this folder will be made in.

        Raises:
            ServiceRejectedError: there is none, and none will be made.
        """
        folder = os.path.dirname(self._path)
        for each in (folder, os.path.dirname(folder)):
            if os.path.isdir(each):
                return each
        raise ServiceRejectedError(f"there is no folder {folder}, nor one that it could be made in")

    def _rights(self) -> Iterator[Finding]:
        if self._exists and not os.access(self._path, os.R_OK | os.W_OK):
            yield Finding(
                Level.PROBLEM,
                f"this user may not write to {self._path}",
                change="give the file to the user who runs this, or name another one in the URL",
            )
        folder = self._folder()
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                Level.PROBLEM,
                f"this user may not write to the folder {folder}, where the log is to lie",
                change="let the user write there, or name a file elsewhere in the URL",
            )

    def _file_system(self) -> Iterator[Finding]:
        kind = _file_system(self._folder())
        if kind in _NETWORK:
            yield Finding(
                Level.PROBLEM,
                f"it lies on a network file system ({kind}), where SQLite's locks do not hold",
                "two processes that write at once can corrupt it",
                "name a file on a local disk, or take a service with a server",
            )

    def _room(self) -> Iterator[Finding]:
        free = shutil.disk_usage(self._folder()).free
        if free < _ROOM:
            yield Finding(
                Level.WARNING,
                f"the disk has only {free // 2**20} MiB left",
                "when it is full nothing can be sent or stored",
                "make room, or name a file elsewhere in the URL",
            )


def _file_system(folder: str) -> str:
    """Return what kind of file system a folder lies on, as Linux calls it; "" if unknown."""
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return ""
    real = os.path.realpath(folder)
    found, kind = "", ""
    for line in lines:
        words = line.split(" ")
        where = words[1].encode().decode("unicode_escape")  # a space is \040 there
        inside = real == where or real.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(found):  # the last one mounted there counts
            found, kind = where, words[2]
    return kind
