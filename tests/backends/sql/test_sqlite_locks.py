"""Locks on the file: what one process holds, no other may take for given up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from upshot.url import Url
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.results import SqliteBackend


def test_opening_a_second_object_keeps_the_first_ones_locks(tmp_path: Path) -> None:
    """Without its locks, the next process to close takes itself for the last, and the log goes."""
    url = Url.parse(f"sqlite:///{tmp_path}/locks.db")
    backend, broker = SqliteBackend(url), SqliteBroker(url, "locks")
    backend.load(["a"], 5.0)
    broker.survey(["default"], 5.0)
    log = tmp_path / "locks.db-wal"
    assert log.exists()

    other = f"import sqlite3; c = sqlite3.connect({str(tmp_path / 'locks.db')!r}); "
    other += "c.execute('select count(*) from sqlite_schema').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", other], check=True, timeout=30)

    assert log.exists()
    assert backend.load(["a"], 5.0) == [None]
    backend.close()
    broker.close()
