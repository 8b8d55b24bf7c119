"""A server's program on this machine: where it is, its version, how to run it."""

from __future__ import annotations

import os
import re
import subprocess
from abc import ABC
from pathlib import Path
from typing import ClassVar

from upshot.errors import UpshotError

from .programs import Account, find_program, unprivileged_account

__all__ = ["Installation", "ServerError"]

_QUOTED = 2_000
"""How many characters of a program's output an error quotes."""

_TOOL_TIMEOUT = 60.0
"""Seconds a tool such as `initdb` may take; the slowest takes about one on two cores."""


class ServerError(UpshotError):
    """A private server could not be found, started or stopped; the message says what to do."""


class Installation(ABC):
    """What a kind of server needs on the machine. Each kind says it once, in class variables."""

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

    drops_root: ClassVar[bool] = True
    """Whether a server started by root runs as `nobody`."""

    def __init__(self) -> None:
        self._account: Account | None = unprivileged_account() if self.drops_root else None
        self._version = ""

    @classmethod
    def program(cls) -> Path | None:
        """Return the server's executable, or None when it is not installed."""
        return find_program(cls.programs, cls.places, before_path=cls.places_before_path)

    @classmethod
    def installed(cls) -> bool:
        """True when everything that a start runs is there."""
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

    def _read_version(self) -> str:
        """Return a text in which the version is the first dotted number."""
        return self._run([str(self._required()), "--version"], Path("/"))

    def _environment(self) -> dict[str, str]:
        """Return the variables this server needs beyond PATH, HOME and the locale."""
        return {}

    def _required(self) -> Path:
        """Return the program, or raise the error that says how to get it."""
        program = self.program()
        if not program or not self.installed():
            names = " or ".join(self.programs)
            raise ServerError(f"{self.name} is not installed (no {names}): {self.how_to_install}")
        return program

    def _run(self, argv: list[str], folder: Path) -> str:
        """Run a tool in `folder` as the server's account and return what it printed."""
        account = self._account
        try:
            done = subprocess.run(
                argv,
                env=self._whole_environment(folder),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=True,
                timeout=_TOOL_TIMEOUT,
                user=account.user if account else None,
                group=account.group if account else None,
                extra_groups=[] if account else None,
            )
        except subprocess.CalledProcessError as exc:
            said = str(exc.output)[-_QUOTED:].strip()
            raise ServerError(f"{argv[0]} failed with exit code {exc.returncode}: {said}") from exc
        except subprocess.TimeoutExpired as exc:
            raise ServerError(f"{argv[0]} did not end in {_TOOL_TIMEOUT:g} s") from exc
        except OSError as exc:
            raise ServerError(f"cannot run {argv[0]}: {exc}; {self.how_to_install}") from exc
        return done.stdout

    def _whole_environment(self, home: Path) -> dict[str, str]:
        # Nothing else is inherited: a PGDATA or RABBITMQ_NODENAME of the user would be obeyed.
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            **self._environment(),
        }
