"""Many processes on one file: races, forks and kills."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from upshot import clock
from upshot.backend import StoredRecord
from upshot.errors import ServiceUnavailableError
from upshot_backends.sql.sqlite.broker import SqliteBroker
from upshot_backends.sql.sqlite.results import SqliteBackend

RecordMaker = Callable[..., StoredRecord]

PROGRAMS = Path(__file__).parent.parent / "programs"


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_eight_processes_that_race_for_an_id_exactly_one_wins(
    backend: SqliteBackend, path: Path
) -> None:
    racers = [start("store_terminal.py", f"sqlite:///{path}", str(who)) for who in range(8)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    finished = [racer.communicate(timeout=60) for racer in racers]

    assert [error for _, error in finished] == [""] * 8
    won = [(int(key), who) for who, (keys, _) in enumerate(finished) for key in keys.split()]
    assert sorted(key for key, _ in won) == list(range(200))
    stored = backend.load([f"ns:{key}" for key, _ in won], 5.0)
    assert stored == [str(who).encode() for _, who in won]


def test_nothing_that_was_confirmed_is_lost_when_processes_are_killed(
    backend: SqliteBackend, broker: SqliteBroker, path: Path, raw: sqlite3.Connection
) -> None:
    confirmed: list[str] = []
    for round_ in range(5):
        writers = [
            start("store_until_killed.py", f"sqlite:///{path}", f"{round_}-{who}")
            for who in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            confirmed += [writer.stdout.readline().strip() for _ in range(20)]
        for writer in writers:
            writer.kill()
        for writer in writers:
            rest, error = writer.communicate(timeout=10)
            assert error == ""
            confirmed += [line for line in rest.splitlines(keepends=False) if line]
        assert backend.load([f"ns:{confirmed[-1]}"], 2.0) != [None]

    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # The last line of a killed process may be cut: only whole items count.
    whole = [item for item in confirmed if item.count("-") == 2 and item[-1].isdigit()]
    assert len(whole) >= 300
    bodies = backend.load([f"ns:{item}" for item in whole], 5.0)
    assert None not in bodies
    queued = {row[0] for row in raw.execute("SELECT message_id FROM upshot_messages")}
    stored = {row[0] for row in raw.execute("SELECT task_id FROM upshot_results")}
    assert queued == stored  # they were published in one step
    assert set(whole) <= queued


def test_a_writer_that_is_stopped_holds_others_up_no_longer_than_their_timeout(
    backend: SqliteBackend, path: Path, record: RecordMaker
) -> None:
    with start("store_until_killed.py", f"sqlite:///{path}", "w") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        slowest = 0.0
        for number in range(20):
            writer.send_signal(signal.SIGSTOP)
            began = clock.monotonic()
            # It may have been stopped within a transaction.
            with contextlib.suppress(ServiceUnavailableError):
                backend.store([record(f"k{number}")], 0.2)
            slowest = max(slowest, clock.monotonic() - began)
            writer.send_signal(signal.SIGCONT)
        writer.kill()
        writer.communicate()

    assert slowest < 1.0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forks_in_the_middle_of_writes_disturb_neither_parent_nor_child(
    backend: SqliteBackend, broker: SqliteBroker, record: RecordMaker
) -> None:
    stop, failures = threading.Event(), list[BaseException]()

    def write(name: str) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                assert backend.store([record(f"{name}-{number}", expires=None)], 5.0) == [True]
        except BaseException as exc:
            failures.append(exc)

    listener = backend.listen(5.0)
    assert listener is not None
    threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    codes: list[int] = []
    for number in range(20):
        listener.wait(0.01)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                own = backend.store([record(f"child-{number}")], 5.0) == [True]
                code = 0 if own and backend.load([f"child-{number}"], 5.0) == [b"body"] else 2
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    listener.close()

    assert failures == []
    assert codes == [0] * 20
    children = backend.load([f"child-{number}" for number in range(20)], 5.0)
    assert children == [b"body"] * 20


def test_a_child_inherits_no_open_database(
    backend: SqliteBackend, record: RecordMaker, open_files: Callable[[], list[str]]
) -> None:
    backend.store([record("k")], 5.0)
    listener = backend.listen(5.0)
    assert listener is not None
    listener.wait(0.0)
    before = open_files()
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = int(open_files() != [])
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert before
    assert code == 0
    assert backend.load(["k"], 5.0) == [b"body"]
    assert list(listener.wait(5.0)) != []  # the gap counts as a commit
    listener.close()
