"""What every private server has in common: start, probe, faults, stop."""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from upshot import clock

from .installation import Installation, ServerError
from .ports import LOOPBACK
from .process import ChildProcess
from .workplace import Workplace

__all__ = ["Server"]

_TRIES = 3
"""How many ports `start()` tries; a reserved port is taken only by someone who names it."""

_POLL = 0.02
"""Seconds between two probes; the quickest server here needs about this long to start."""

_PROBE_TIMEOUT = 2.0
"""Seconds one probe may take; all of them are answered from memory."""

_STOP_PATIENCE = 15.0
"""Seconds a server gets to stop by itself; RabbitMQ, the slowest, needs about three."""

_TAIL = 2_000
"""How many characters of a failed server's log an error quotes."""

_TAKEN = re.compile(r"address already in use|eaddrinuse", re.IGNORECASE)


class _PortTakenError(ServerError):
    """The server ended because somebody else listens on its port."""


class Server(Installation):
    """One private server on 127.0.0.1, with its files in a temporary folder.

    Use it as a context manager, or call `start()` and `stop()`. `kill()`, `pause()` and
    `restart()` are for tests of what happens when a service fails. A server that nobody stopped
    is stopped when the interpreter exits; on Linux, one started from the main thread also dies
    with the process. Not thread-safe. A forked child may use `url`, but never stops its
    parent's server.

    A subclass names its program, and says how to start it and how to tell that it answers.

    Args:
        start_timeout: seconds the server may take until it answers.
    """

    ports_needed: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, start_timeout: float = 60.0) -> None:
        super().__init__()
        self._start_timeout = start_timeout
        self._workplace: Workplace | None = None
        self._process: ChildProcess | None = None
        self._owner = os.getpid()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL a backend or broker opens, password included if there is one.

        Raises:
            ServerError: the server was not started.
        """

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program and arguments that run the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Probe once; an OSError counts as "not yet"."""

    def _prepare(self) -> None:
        """Fill the new, empty folder."""

    def _release(self) -> None:
        """Free what lies outside the folder, after the server has ended."""

    def start(self) -> None:
        """Start the server and return once it answers; nothing is left behind on failure.

        Raises:
            ServerError: not installed, already started, ended early, or silent for
                `start_timeout` seconds. The message quotes the end of the server's log.
        """
        if self._workplace:
            raise ServerError(f"{self.name} is started already; call stop() first, or restart()")
        self._required()
        for attempt in range(1, _TRIES + 1):
            try:
                self._start_once()
            except _PortTakenError:
                self.stop()
                if attempt == _TRIES:
                    raise
            except BaseException:  # Ctrl-C while a server starts must not leave it running
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End the server, by force if it must be, and remove its folder; idempotent."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        self._end()
        self._release()
        if self._workplace:
            self._workplace.close()
            self._workplace = None

    def kill(self) -> None:
        """End the server at once with SIGKILL; its folder and port stay for `restart()`."""
        if self._process and self._process.running:
            self._process.kill()

    def restart(self) -> None:
        """Start the server again on the same port and files; end it first if it runs.

        Raises:
            ServerError: never started, or as for `start()`.
        """
        self._started()
        self._end()
        self._launch()

    def pause(self) -> None:
        """Freeze the server: clients stay connected and get no answer until `resume()`."""
        self._alive().pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._alive().resume()

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            ServerError: the server does not run.
        """
        return self._alive().pid

    @property
    def running(self) -> bool:
        """True from `start()` until the process ends, for whatever reason."""
        return self._process is not None and self._process.running

    @property
    def folder(self) -> Path:
        """The temporary folder with the server's files and its `server.log`.

        Raises:
            ServerError: the server was not started.
        """
        return self._started().folder

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, the same until `stop()`.

        Raises:
            ServerError: the server was not started.
        """
        return self._started().ports[0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _connect(self) -> socket.socket:
        """Open a TCP connection to the server for one probe."""
        return socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_TIMEOUT)

    def _start_once(self) -> None:
        self._owner = os.getpid()
        atexit.register(self.stop)
        self._workplace = Workplace(self.name.lower(), self.ports_needed, self._account)
        self._prepare()
        self._launch()

    def _launch(self) -> None:
        place = self._started()
        try:
            self._process = ChildProcess(
                self._command(),
                environment=self._whole_environment(place.folder),
                folder=place.folder,
                log=place.log,
                account=self._account,
            )
        except OSError as exc:
            raise ServerError(f"cannot run {self.name}: {exc}; {self.how_to_install}") from exc
        deadline = clock.Deadline(self._start_timeout)
        while not deadline.expired:
            if not self._process.running:
                raise self._failure("ended before it answered")
            with suppress(OSError):
                if self._answers() and self._process.running:
                    return
            clock.sleep(_POLL)
        raise self._failure(f"did not answer within {self._start_timeout:g} s")

    def _failure(self, what: str) -> ServerError:
        log = self._started().log.read_text(encoding="utf-8", errors="replace")
        tail = log[-_TAIL:].strip() or "(nothing)"
        kind = _PortTakenError if _TAKEN.search(tail) else ServerError
        return kind(
            f"{self.name} {what}. Its log ends:\n{tail}\n"
            f"If the installation is broken, repair it: {self.how_to_install}"
        )

    def _end(self) -> None:
        if self._process and self._process.running:
            self._process.end(self.stop_signal, _STOP_PATIENCE)
        self._process = None

    def _started(self) -> Workplace:
        if not self._workplace:
            raise ServerError(f"{self.name} is not started; call start() or use it in `with`")
        return self._workplace

    def _alive(self) -> ChildProcess:
        if not self._process or not self._process.running:
            raise ServerError(f"{self.name} does not run; call start(), or restart() after kill()")
        return self._process
