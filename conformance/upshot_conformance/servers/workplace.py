"""The temporary folder and the reserved ports of one private server."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .ports import PortReservation
from .programs import Account

__all__ = ["Workplace"]


class Workplace:
    """A new folder that only the server's account may enter, and ports that are the server's.

    Args:
        label: a word for the folder's name, so that people see what it is.
        ports: how many to reserve.
        account: who owns the files, or None for the present user.
    """

    def __init__(self, label: str, ports: int, account: Account | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"upshot-{label}-"))
        self._account = account
        self._own(self.folder)
        self._reservations = [PortReservation() for _ in range(ports)]
        self.ports = [reservation.number for reservation in self._reservations]

    @property
    def log(self) -> Path:
        """The file with everything that the server printed."""
        return self.folder / "server.log"

    def write(self, name: str, text: str) -> Path:
        """Write a file that the server's account may read, and nobody else; return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        self._own(path)
        return path

    def close(self) -> None:
        """Remove the folder and give the ports back; idempotent."""
        for reservation in self._reservations:
            reservation.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _own(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.user, self._account.group)
