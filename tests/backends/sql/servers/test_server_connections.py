"""How many connections a process keeps."""

from __future__ import annotations

import threading

import pytest

from upshot_backends.sql import server as server_module
from upshot_backends.sql.connection import Cursor
from upshot_backends.sql.results import SqlBackend
from upshot_backends.sql.server import ServerDatabase

_THREADS = 6


def test_what_a_burst_opened_is_closed_when_it_is_not_needed(
    backend: SqlBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = backend.database
    assert isinstance(database, ServerDatabase)
    everybody = threading.Barrier(_THREADS)

    def meet(_: Cursor) -> None:
        everybody.wait(30.0)

    def connections() -> int:
        return len(database._open)  # pyright: ignore[reportPrivateUsage]

    backend.load(["a"], 30.0)  # the tables, and an undisturbed opening
    monkeypatch.setattr(server_module, "_WORTH_KEEPING", 10_000)
    threads = [threading.Thread(target=database.run, args=(30.0, meet)) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.load(["a"], 30.0) == [None]
    assert connections() == _THREADS  # the next burst may come at once

    monkeypatch.setattr(server_module, "_WORTH_KEEPING", 0)
    for _ in range(2):
        assert backend.load(["a"], 30.0) == [None]
    assert connections() == 1
