"""One server process and whatever it forks: start, pause, kill, end.

A server must not outlive the tests that started it. Linux ends it when its parent dies, however
that happens, because `setpriv --pdeathsig` (util-linux) asks for that before it becomes the
server. The kernel takes "parent" to mean the *thread* that forked, so this guard is set only
from the main thread; a server started elsewhere is stopped by its owner's `atexit` hook.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from upshot import clock

from .programs import Account

__all__ = ["ChildProcess", "ProcessId", "is_alive"]

_POLL = 0.01
"""Seconds between two looks at a process that is ending; small beside any server's shutdown."""

_STOPPED_WITHIN = 10.0
"""Seconds the threads of a paused process get to stop; only a slow disk can hold one up."""

_GONE_WITHIN = 10.0
"""Seconds a killed process gets to vanish; the kernel needs milliseconds."""


class ProcessId(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    born: int  # clock ticks since boot; 0 where there is no /proc


class ChildProcess:
    """A running server. Not thread-safe: one thread starts it and ends it.

    Args:
        argv: the program and its arguments.
        environment: the whole environment; nothing is inherited.
        folder: the working directory.
        log: the file that receives standard output and error, appended to.
        account: whom to run as, or None for the present user.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        account: Account | None,
    ) -> None:
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*_death_guard(), *argv],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal must reach the tests, not the servers under them.
                start_new_session=True,
                user=account.user if account else None,
                group=account.group if account else None,
                extra_groups=[] if account else None,
            )

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """True until the server has ended; a paused server is running."""
        return self._popen.poll() is None

    def pause(self) -> None:
        """Freeze the server and its children: connections stay open, nothing answers.

        Returns when every thread has stopped: the signal does not wait for those that run.
        """
        # The parent goes first, so that it forks no child which this would miss.
        self._popen.send_signal(signal.SIGSTOP)
        children = _descendants(self.pid)
        _signal_all(children, signal.SIGSTOP)
        deadline = clock.Deadline(_STOPPED_WITHIN)
        pids = [self.pid, *(child.pid for child in children)]
        while not all(map(_is_stopped, pids)) and not deadline.expired:
            clock.sleep(_POLL)

    def resume(self) -> None:
        """Undo `pause()`."""
        _signal_all(_descendants(self.pid), signal.SIGCONT)
        self._popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server and its children at once, as a crash of the machine would."""
        self.pause()
        children = _descendants(self.pid)
        self._popen.kill()
        _signal_all(children, signal.SIGKILL)
        self._popen.wait()
        _wait_until_gone(children)

    def end(self, ask: signal.Signals, patience: float) -> None:
        """Ask the server to end, wait `patience` seconds, then kill it and its children."""
        children = _descendants(self.pid)
        self.resume()
        self._popen.send_signal(ask)
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        _signal_all(children, signal.SIGKILL)
        _wait_until_gone(children)


def is_alive(process: ProcessId) -> bool:
    """True while that very process runs; a zombie has ended."""
    status = _status(process.pid)
    return status is not None and status.born == process.born and status.state not in "ZX"


class _Status(NamedTuple):
    """What `/proc/<pid>/stat` says."""

    state: str
    parent: int
    born: int


def _death_guard() -> list[str]:
    """Return the command prefix that ties a server's life to this process, if there is one."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return []
    setpriv = shutil.which("setpriv", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _status(pid: int, folder: Path = Path("/proc")) -> _Status | None:
    """Read the state of one process, or of a thread in its process's folder; None if it is gone."""
    try:
        text = (folder / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): "pid (comm) state ppid … starttime"; comm may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return _Status(state=fields[0], parent=int(fields[1]), born=int(fields[19]))


def _is_stopped(pid: int) -> bool:
    """True when no thread of the process runs; where there is no /proc, nobody can tell."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        status = _status(int(task.name), Path(f"/proc/{pid}/task"))
        if status is not None and status.state not in "TtZX":
            return False
    return True


def _descendants(pid: int) -> list[ProcessId]:
    """Return the processes below `pid`, whatever session they moved to (PostgreSQL's do)."""
    children: dict[int, list[ProcessId]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if status := _status(int(entry.name)):
            child = ProcessId(int(entry.name), status.born)
            children.setdefault(status.parent, []).append(child)
    found: list[ProcessId] = []
    unseen = [pid]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += [child.pid for child in below]
    return found


def _signal_all(processes: Iterable[ProcessId], number: signal.Signals) -> None:
    """Signal each process that is still the one that was listed."""
    for process in processes:
        if is_alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue  # it ended between the look and the signal


def _wait_until_gone(processes: Sequence[ProcessId]) -> None:
    """Return once all have ended; they were killed, so only a kernel wait can keep them."""
    deadline = clock.Deadline(_GONE_WITHIN)
    while any(is_alive(process) for process in processes) and not deadline.expired:
        clock.sleep(_POLL)
