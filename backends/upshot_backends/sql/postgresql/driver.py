"""Where upshot meets psycopg: connections kept to a deadline, and errors read by their SQLSTATE.

psycopg waits for as long as the server takes. So waiting is done here: psycopg's generators say
what they wait for, and the wait ends at the connection's own moment, `until`.
"""

from __future__ import annotations

import re
import select
from typing import Any, Final, TypeVar, final

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from upshot import clock
from upshot.errors import UrlError
from upshot.url import Url

__all__ = [
    "OutdatedError",
    "Parameters",
    "RefusedError",
    "TimedConnection",
    "TimedOutError",
    "connect",
    "hosts",
    "is_transient",
    "parameters",
]

T = TypeVar("T")

Parameters = dict[str, Any]
"""What libpq takes to connect, by its keywords."""

_EVENTS: Final = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}
_READY: Final = {
    select.POLLIN: Ready.R,
    select.POLLOUT: Ready.W,
    select.POLLIN | select.POLLOUT: Ready.RW,
}
_POLLING: Final = {pq.PollingStatus.READING: Wait.R, pq.PollingStatus.WRITING: Wait.W}

# Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html, or whole codes:
# connection, rollback (serialization, deadlock), resources (disk full, too many connections),
# locks not available, operator's intervention (shutdown), system error, a standby that will
# be promoted or is not the one, and a transaction that was ended because it stood still.
_TRANSIENT: Final = ("08", "40", "53", "55P03", "57", "58", "25006", "25P03")

# An error of a connection that is not open yet has no code, only words. A server that speaks
# another language than English is taken to be unreachable, until the time is up.
_REFUSALS: Final = re.compile(
    "authentication failed|no password supplied|does not exist|no pg_hba.conf entry"
    "|not permitted to log in|permission denied|certificate verify failed|does not support SSL"
    "|unsupported startup parameter|no such user|no such database|invalid ",
    re.IGNORECASE,
)
_YET: Final = re.compile("No such file or directory|could not translate host name")


class TimedOutError(psycopg.OperationalError):
    """The server did not answer in time."""


class OutdatedError(psycopg.OperationalError):
    """What was prepared on a connection holds no longer: a table's columns have changed since, or
    somebody has had the session discard it."""


class RefusedError(psycopg.OperationalError):
    """The server, or libpq, refused to connect for a reason that will not go away."""


@final
class TimedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every wait ends at `until`, on the monotonic clock.

    A wait that ends so leaves the connection in the middle of something: it has to be closed.
    """

    until: float = 0.0
    _readable: select.poll | None = None  # what tells that an answer comes; the socket stays

    def wait(self, gen: PQGen[T], interval: float = 0.0, timeout: float | None = None) -> T:
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _ready(self, wanted: Wait) -> Ready:
        if wanted is not Wait.R:
            return _poll(self.pgconn.socket, wanted, self.until)
        if self._readable is None:
            self._readable = _registered(self.pgconn.socket, Wait.R)
        return _first(self._readable, wanted, self.until)

    def __del__(self, _: Any = None, /) -> None:
        # psycopg would warn of a connection that nobody closed, also in a forked child and at
        # the end of a process. libpq's own finaliser closes it, in the process that opened it.
        return


def parameters(url: Url) -> Parameters:
    """Return what libpq takes, checked without connecting.

    Raises:
        UrlError: libpq does not know a parameter, or cannot read a value.
    """
    try:
        found: Parameters = dict(conninfo_to_dict(url.driver_url("postgresql")))
        make_conninfo("", **found)
        float(found.get("connect_timeout", 0))
    except (psycopg.Error, ValueError) as exc:
        raise UrlError(f"{url}: libpq does not take this: {url.scrub(str(exc))}") from exc
    found.setdefault("fallback_application_name", "upshot")
    found["client_encoding"] = "utf8"
    return found


def hosts(found: Parameters) -> list[Parameters]:
    """Return the parameters for each host alone, in order; libpq would try them without a limit.

    Raises:
        UrlError: there are not as many ports as hosts.
    """
    names = ("host", "hostaddr", "port")
    lists = {name: str(found[name]).split(",") for name in names if found.get(name)}
    count = max((len(lists[name]) for name in ("host", "hostaddr") if name in lists), default=1)
    if len(lists.get("port", ())) == 1:
        lists["port"] *= count
    if any(len(values) != count for values in lists.values()):
        raise UrlError(f"{count} hosts need one port for all, or one for each")
    return [
        {**found, **{name: values[place] for name, values in lists.items()}}
        for place in range(count)
    ]


def connect(found: Parameters, seconds: float) -> TimedConnection:
    """Open a connection within so many seconds; the resolution of the host's name has no limit.

    Raises:
        TimedOutError: the server did not answer in time.
        RefusedError: it, or libpq, refused for good.
        psycopg.OperationalError: it cannot be reached, or refused for now.
    """
    patience = found.get("connect_timeout")
    if patience is not None and float(patience) > 0:
        seconds = min(seconds, float(patience))
    until = clock.monotonic() + seconds
    pgconn = pq.PGconn.connect_start(make_conninfo("", **found).encode())
    try:
        while True:
            status = pgconn.connect_poll()
            if status == pq.PollingStatus.OK:
                break
            if status not in _POLLING or pgconn.status == pq.ConnStatus.BAD:
                raise _connect_error(pgconn.error_message.decode(errors="replace").strip())
            _poll(pgconn.socket, _POLLING[pq.PollingStatus(status)], until)
        pgconn.nonblocking = 1
    except BaseException:
        pgconn.finish()
        raise
    connection = TimedConnection(pgconn, tuple_row)
    connection.until = until
    connection.autocommit = True
    connection.prepare_threshold = (
        None  # what one server connection of a proxy knows, others do not
    )
    return connection


def is_transient(exc: Exception) -> bool | None:
    """Tell whether trying again may help; None if the exception is not psycopg's."""
    if isinstance(exc, RefusedError):
        return False
    if not isinstance(exc, psycopg.Error):
        return None
    if exc.sqlstate is None:  # not from a server: it is gone, or psycopg was used wrongly
        return isinstance(exc, psycopg.OperationalError)
    return exc.sqlstate.startswith(_TRANSIENT)


def _connect_error(said: str) -> psycopg.OperationalError:
    is_final = _REFUSALS.search(said) and not _YET.search(said)
    return (RefusedError if is_final else psycopg.OperationalError)(said)


def _poll(descriptor: int, wanted: Wait, until: float) -> Ready:
    """Wait until a socket can do what is wanted, at most until a moment."""
    return _first(_registered(descriptor, wanted), wanted, until)


def _registered(descriptor: int, wanted: Wait) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, _EVENTS[wanted])
    return poll


def _first(poll: select.poll, wanted: Wait, until: float) -> Ready:
    events = poll.poll(max(0.0, until - clock.monotonic()) * 1000)
    if not events:
        raise TimedOutError("the server did not answer in time")
    return _READY.get(events[0][1]) or Ready(wanted)  # or an error, which libpq will find
