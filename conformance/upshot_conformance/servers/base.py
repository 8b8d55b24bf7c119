"""What every private server has in common: folder, ports, start, probe, faults, stop."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from upshot import clock
from upshot.errors import UpshotError

from .ports import LOOPBACK, PortReservation
from .process import ChildProcess
from .programs import find_program, unprivileged_account

__all__ = ["Server", "ServerError"]

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


class ServerError(UpshotError):
    """A private server could not be found, started or stopped; the message says what to do."""


class _PortTakenError(ServerError):
    """The server ended because somebody else listens on its port."""


class Server(ABC):
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

    name: ClassVar[str]
    """What people call the service: `PostgreSQL`."""

    programs: ClassVar[tuple[str, ...]]
    """The server's executable, then other names it is known by."""

    places: ClassVar[tuple[str, ...]] = ("/usr/local/sbin", "/usr/sbin", "/sbin")
    """Folders to search after PATH, as shell patterns."""

    places_before_path: ClassVar[tuple[str, ...]] = ()
    """Folders to search before PATH, for a program that PATH hides behind a wrapper."""

    how_to_install: ClassVar[str]
    """One line for a person who lacks the program."""

    ports_needed: ClassVar[int] = 1
    drops_root: ClassVar[bool] = True
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, start_timeout: float = 60.0) -> None:
        self._start_timeout = start_timeout
        self._account = unprivileged_account() if self.drops_root else None
        self._folder: Path | None = None
        self._ports: list[PortReservation] = []
        self._process: ChildProcess | None = None
        self._version = ""
        self._owner = os.getpid()

    # What a subclass says.

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
        """Fill the new, empty folder, for a server that needs more than an empty one."""

    def _release(self) -> None:
        """Free what lies outside the folder, after the server has ended."""

    def _read_version(self) -> str:
        """Return a text in which the version is the first dotted number."""
        return self._run([str(self._required()), "--version"])

    def _environment(self) -> dict[str, str]:
        """Return the variables this server needs beyond PATH, HOME and the locale."""
        return {}

    # What the program is.

    @classmethod
    def program(cls) -> Path | None:
        """Return the server's executable, or None when it is not installed."""
        return find_program(cls.programs, cls.places, before_path=cls.places_before_path)

    @classmethod
    def installed(cls) -> bool:
        """True when everything `start()` runs is there."""
        return cls.program() is not None

    @property
    def version(self) -> str:
        """The server's version, such as `7.0.15`; RabbitMQ tells it only while it runs.

        Raises:
            ServerError: the program is not installed or does not say.
        """
        if not self._version:
            said = self._read_version()
            found = re.search(r"\d+\.\d+(\.\d+)?", said)
            if not found:
                raise ServerError(f"{self.name}: cannot read a version in {said!r}")
            self._version = found.group()
        return self._version

    # Life.

    def start(self) -> None:
        """Start the server and return once it answers; nothing is left behind on failure.

        Raises:
            ServerError: not installed, already started, ended early, or silent for
                `start_timeout` seconds. The message quotes the end of the server's log.
        """
        if self._folder:
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
        for port in self._ports:
            port.close()
        self._ports = []
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End the server at once with SIGKILL; its folder and port stay for `restart()`."""
        if self._process and self._process.running:
            self._process.kill()

    def restart(self) -> None:
        """Start the server again on the same port and files; end it first if it runs.

        Raises:
            ServerError: never started, or as for `start()`.
        """
        self._require_started()
        self._end()
        self._launch()

    def pause(self) -> None:
        """Freeze the server: clients stay connected and get no answer until `resume()`."""
        self._running_process().pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running_process().resume()

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            ServerError: the server does not run.
        """
        return self._running_process().pid

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
        return self._require_started()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, the same until `stop()`.

        Raises:
            ServerError: the server was not started.
        """
        self._require_started()
        return self._ports[0].number

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"port {self.port}" if self._folder else "stopped"
        return f"<{type(self).__name__} {state}>"

    # What subclasses use.

    def _connect(self) -> socket.socket:
        """Open a TCP connection to the server for one probe."""
        return socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_TIMEOUT)

    def _write(self, name: str, text: str) -> Path:
        """Write a file into the folder that the server's account may read, and nobody else."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        if self._account:
            os.chown(path, self._account.user, self._account.group)
        return path

    def _run(self, argv: list[str]) -> str:
        """Run a program to its end as the server's account and return what it printed."""
        try:
            done = subprocess.run(
                argv,
                env=self._whole_environment(),
                cwd=self._folder or "/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=True,
                timeout=self._start_timeout,
                user=self._account.user if self._account else None,
                group=self._account.group if self._account else None,
                extra_groups=[] if self._account else None,
            )
        except subprocess.CalledProcessError as exc:
            said = str(exc.output)[-_TAIL:].strip()
            raise ServerError(f"{argv[0]} failed with exit code {exc.returncode}: {said}") from exc
        except subprocess.TimeoutExpired as exc:
            raise ServerError(f"{argv[0]} did not end in {self._start_timeout:g} s") from exc
        except OSError as exc:
            raise ServerError(f"cannot run {argv[0]}: {exc}; {self.how_to_install}") from exc
        return done.stdout

    def _required(self) -> Path:
        """Return the program, or raise the error that says how to get it."""
        program = self.program()
        if not program or not self.installed():
            names = " or ".join(self.programs)
            raise ServerError(f"{self.name} is not installed (no {names}): {self.how_to_install}")
        return program

    # How it is done.

    def _start_once(self) -> None:
        self._owner = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix=f"upshot-{self.name.lower()}-"))
        if self._account:
            os.chown(self._folder, self._account.user, self._account.group)
        atexit.register(self.stop)
        self._ports = [PortReservation() for _ in range(self.ports_needed)]
        self._prepare()
        self._launch()

    def _launch(self) -> None:
        folder = self.folder
        try:
            self._process = ChildProcess(
                self._command(),
                environment=self._whole_environment(),
                folder=folder,
                log=folder / "server.log",
                account=self._account,
            )
        except OSError as exc:
            raise ServerError(f"cannot run {self.name}: {exc}; {self.how_to_install}") from exc
        deadline = clock.Deadline(self._start_timeout)
        while not deadline.expired:
            if not self._process.running:
                raise self._failure("ended before it answered")
            if self._probe() and self._process.running:
                return
            clock.sleep(_POLL)
        raise self._failure(f"did not answer within {self._start_timeout:g} s")

    def _probe(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _failure(self, what: str) -> ServerError:
        log = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
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

    def _require_started(self) -> Path:
        if not self._folder:
            raise ServerError(f"{self.name} is not started; call start() or use it in `with`")
        return self._folder

    def _running_process(self) -> ChildProcess:
        if not self._process or not self._process.running:
            raise ServerError(f"{self.name} does not run; call start(), or restart() after kill()")
        return self._process

    def _whole_environment(self) -> dict[str, str]:
        # Nothing else is inherited: a PGDATA or RABBITMQ_NODENAME of the user would be obeyed.
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self._folder or "/"),
            "LC_ALL": "C.UTF-8",
            **self._environment(),
        }
