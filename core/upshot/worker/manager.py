"""What a worker tells the service manager that started it: systemd, or whoever speaks sd_notify(3).

The protocol is one datagram of lines for each thing to tell, to the socket that is NOTIFY_SOCKET:
https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. It is written here because
it is that short: `sdnotify`, the package that many use, has had no release since 2017 and keeps
silent about every error, and `systemd-python` wants libsystemd and a compiler.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final, final

from upshot import clock

__all__ = ["ServiceManager"]

logger = logging.getLogger("upshot.worker")

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MICRO: Final = 1_000_000  # microseconds in a second, the protocol's unit
_DIGITS: Final = 20  # of the longest time that the protocol has, 64 bits
_LEAST_SILENCE: Final = 5.0  # seconds: ten signs of life that were due, on a machine that is busy
_EXTENSION: Final = 10.0  # seconds that a stop is to be left for, from each time it says so
_EXTENDED_EVERY: Final = 1.0  # seconds; a few of these datagrams may be lost


@final
class ServiceManager:
    """Whoever started this process and waits to be told how it goes; or nobody.

    Where NOTIFY_SOCKET is not set, nothing is done. Otherwise it is taken out of the environment,
    with WATCHDOG_USEC and WATCHDOG_PID, so that no process of a task takes itself for the service.

    No call waits. What a full socket does not take is told by the next call that has something to
    say; each is made again and again.

    Args:
        environment: where the variables are; None is `os.environ`.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._taken = {name: variables.pop(name) for name in _VARIABLES if name in variables}
        self._address = _address(self._taken.get("NOTIFY_SOCKET", ""))
        self._interval = math.inf if self._address is None else _interval(self._taken)
        self._is_ready = self._is_unheard = False
        self._status = self._ending = ""
        self._pinged_at = self._extended_at = -math.inf

    @property
    def patience(self) -> float:
        """Seconds without a sign of life after which a process counts as wedged.

        As long as the manager's own patience with this process, but 5 at least; infinite if there
        is no watchdog.
        """
        return max(self._interval, _LEAST_SILENCE)

    def restore(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Put the variables back, for the program that this process is about to become."""
        (os.environ if environment is None else environment).update(self._taken)

    def running(self, consuming: int, processes: int) -> None:
        """Tell how many processes consume; once all of them do, that the service is ready."""
        status = f"{consuming} of {processes} processes consume"
        lines: dict[str, str] = {}
        if consuming == processes and not self._is_ready:
            lines["READY"] = "1"
        if status != self._status:
            lines["STATUS"] = status
        if lines and self._tell(lines):
            self._status = status
            self._is_ready |= consuming == processes

    def stopping(self, left: float, *, restarts: bool) -> None:
        """Tell that the service ends, or begins anew, and how much longer that may take.

        The manager's own time for it is lengthened by a few seconds again and again, until `left`
        is 0: a worker whose grace is longer than that time is not killed in the middle of a task,
        and one that hangs while it stops is not waited for.

        Args:
            left: seconds that running tasks still have.
            restarts: this process goes on as the same program, from its beginning.
        """
        now = clock.monotonic()
        lines: dict[str, str] = {}
        ending = "RELOADING" if restarts else "STOPPING"
        if ending != self._ending:
            lines[ending] = "1"
            if restarts:
                lines["MONOTONIC_USEC"] = f"{now * _MICRO:.0f}"
            lines["STATUS"] = f"stopping: running tasks have {left:.0f} seconds to finish"
        if left > 0 and now >= self._extended_at + _EXTENDED_EVERY:
            lines["EXTEND_TIMEOUT_USEC"] = f"{_EXTENSION * _MICRO:.0f}"
        if lines and self._tell(lines):
            self._ending = ending
            self._extended_at = now if left > 0 else self._extended_at

    def alive(self) -> None:
        """Tell that the service lives, twice in the time that the watchdog allows."""
        now = clock.monotonic()
        if now >= self._pinged_at + self._interval / 2 and self._tell({"WATCHDOG": "1"}):
            self._pinged_at = now

    def _tell(self, lines: Mapping[str, str]) -> bool:
        """Send one datagram; return whether the socket has taken it."""
        if self._address is None:
            return False
        text = "\n".join(f"{name}={value}" for name, value in lines.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)  # a manager that hangs is not to make its worker hang
                channel.sendto(text.encode(), self._address)
        except OSError as exc:
            if not self._is_unheard:
                logger.warning("the service manager at NOTIFY_SOCKET cannot be told: %s", exc)
            self._is_unheard = True
            return False
        self._is_unheard = False
        return True


def _address(name: str) -> str | None:
    """Return the address of a socket: a file, or with `@` one in Linux's abstract namespace."""
    if not name:
        return None
    if name.startswith("@"):
        return f"\0{name[1:]}"
    if name.startswith("/"):
        return name
    logger.warning("NOTIFY_SOCKET is neither a path nor begins with @: nobody is told")
    return None


def _interval(variables: Mapping[str, str]) -> float:
    """Return the seconds within which to show life; infinite if there is no need."""
    if variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return math.inf  # of a process that has started this one
    text = variables.get("WATCHDOG_USEC", "")
    if not text:
        return math.inf
    if text.isdecimal() and len(text) <= _DIGITS and int(text) > 0:
        return int(text) / _MICRO
    logger.warning("WATCHDOG_USEC is no number of microseconds: there is no watchdog")
    return math.inf
