"""Where upshot meets PyMySQL: connections kept to a deadline, and errors read by their numbers.

PyMySQL gives each wait for the socket the same timeout again, so that a server that trickles would
never be late. Here each read and write of the socket gets the time that is left.
"""

from __future__ import annotations

import contextlib
import inspect
import ssl
import struct
from collections.abc import Generator
from typing import Any, Final, final
from urllib.parse import unquote

from pymysql import err
from pymysql.connections import Connection as DriverConnection
from pymysql.constants import CLIENT, CR, ER

from upshot import clock
from upshot.errors import UrlError
from upshot.url import Url

__all__ = [
    "Parameters",
    "TimedConnection",
    "connect",
    "is_transient",
    "number",
    "parameters",
    "understood",
]

Parameters = dict[str, Any]
"""Keywords of PyMySQL's connections."""

_KNOWN: Final = frozenset(inspect.signature(DriverConnection.__init__).parameters)
_BOOLEANS: Final = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")
_REFUSED: Final = ("cursorclass", "conv", "defer_connect", "local_infile", "self", "ssl")
_ELSEWHERE: Final = ("database", "db", "host", "passwd", "password", "port", "user")
_OURS: Final = ("autocommit", "charset", "collation", "read_timeout", "sql_mode", "use_unicode")
_SLACK: Final = 0.01  # seconds by which a wait for the socket may be late
_TRUTH: Final = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

# Numbers of https://mariadb.com/kb/en/mariadb-error-codes/ and
# https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html that PyMySQL lacks.
_KILLED: Final = 1927  # MariaDB: the connection was killed
_STATEMENT_TIMES: Final = (1969, 3024)  # max_statement_time, max_execution_time
_READ_ONLY: Final = (ER.OPTION_PREVENTS_STATEMENT, 1792, 1836)  # a replica; fail-over will end it
_GROUP_ROLLBACK: Final = 3101  # Group Replication: another member was first
_IDLE_TRANSACTION: Final = (4029, 4030)  # MariaDB's idle_transaction_timeout
_TRANSIENT: Final = frozenset(
    {
        CR.CR_CONNECTION_ERROR,
        CR.CR_CONN_HOST_ERROR,
        CR.CR_SERVER_GONE_ERROR,
        CR.CR_SERVER_LOST,
        CR.CR_SERVER_LOST_EXTENDED,
        ER.ABORTING_CONNECTION,
        ER.NEW_ABORTING_CONNECTION,
        ER.CHECKREAD,  # MariaDB's snapshot isolation: the row has changed
        ER.CON_COUNT_ERROR,
        ER.DISK_FULL,
        ER.ERROR_DURING_COMMIT,
        ER.FORCING_CLOSE,
        ER.LOCK_DEADLOCK,
        ER.LOCK_TABLE_FULL,
        ER.LOCK_WAIT_TIMEOUT,
        ER.NORMAL_SHUTDOWN,
        ER.OUTOFMEMORY,
        ER.OUT_OF_RESOURCES,
        ER.QUERY_INTERRUPTED,
        ER.RECORD_FILE_FULL,
        ER.SERVER_SHUTDOWN,
        ER.TOO_MANY_USER_CONNECTIONS,
        ER.UNKNOWN_COM_ERROR,  # Galera: this node is not ready
        ER.USER_LIMIT_REACHED,
        _GROUP_ROLLBACK,
        _KILLED,
        *_IDLE_TRANSACTION,
        *_READ_ONLY,
        *_STATEMENT_TIMES,
    }
)


@final
class TimedConnection(DriverConnection):
    """A connection whose every wait ends at `until`, on the monotonic clock.

    A wait that ends so closes the connection. What it overrides is PyMySQL's only way to the
    socket.
    """

    until: float = 0.0
    _requires_tls: bool = False
    _armed: float = 0.0  # the moment at which the socket was last given a timeout

    def _read_bytes(self, num_bytes: int) -> bytes:
        found = bytearray()
        try:
            while len(found) < num_bytes:
                self._arm()
                part = self._inside._rfile.read1(num_bytes - len(found))
                if not part:
                    raise ConnectionError("the server closed the connection")
                found += part
        except OSError as exc:
            self._inside._force_close()
            raise err.OperationalError(
                CR.CR_SERVER_LOST, f"no answer from the server: {exc}"
            ) from exc
        except BaseException:
            self._inside._force_close()
            raise
        return bytes(found)

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._arm()
            self._inside._sock.sendall(data)
        except OSError as exc:
            self._inside._force_close()
            raise err.OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"the server takes no more: {exc}"
            ) from exc

    def _arm(self) -> None:
        now = clock.monotonic()
        if now >= self.until:
            raise TimeoutError("timed out")
        if now - self._armed > _SLACK:  # it costs as much as reading a row
            self._inside._sock.settimeout(self.until - now)
            self._armed = now

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        """Return what TLS is spoken with; `sslp` is empty if no parameter is about it.

        Then a server that offers TLS is spoken to in it, and no certificate is verified. PyMySQL
        reads all of the system's certificates all the same, which holds every thread up for
        longer than the rest of connecting takes.
        """
        if sslp:
            driver: Any = super()
            return driver._create_ssl_ctx(sslp)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def require_tls(self, required: bool, *, check_name: bool) -> None:
        """Never speak without TLS, if `required`; `check_name`: nor with another host than asked.

        PyMySQL checks no name unless it is given an authority, although Python knows many.
        """
        self._requires_tls = required
        if required and check_name:
            self._inside.ctx.check_hostname = True

    def _request_authentication(self) -> None:
        # PyMySQL 1.1 goes on without TLS where a server, or who stands between, offers none.
        if self._requires_tls and not self._inside.server_capabilities & CLIENT.SSL:
            raise err.OperationalError(
                CR.CR_SSL_CONNECTION_ERROR, "the server offers no TLS, which the URL asks for"
            )
        super()._request_authentication()  # type: ignore[misc, unused-ignore]  # pyright: ignore

    def keep_to(self, until: float) -> None:
        """Let everything from now on end at `until`."""
        self.until, self._armed = until, 0.0

    @property
    def _inside(self) -> Any:
        """This object, with the attributes of PyMySQL's that have no type."""
        return self

    @property
    def is_lost(self) -> bool:
        """True once either side has ended the connection."""
        return self._inside._sock is None

    @property
    def descriptor(self) -> int:
        """The socket's number; -1 if there is none."""
        return -1 if self.is_lost else int(self._inside._sock.fileno())


def parameters(url: Url) -> list[Parameters]:
    """Return what PyMySQL takes for each host of the URL, checked without connecting.

    Raises:
        UrlError: the URL names no database, or a parameter that PyMySQL does not know.
    """
    database = unquote(url.path.removeprefix("/"))
    if not database or "/" in database:
        found_here = "more than a database" if database else "no database"
        raise UrlError(f"{url} names {found_here}: write {url.scheme}://user@host/database")
    found: Parameters = {}
    for name, text in url.query:
        known = "ssl_verify_identity" if name == "ssl_check_hostname" else name
        if known not in _KNOWN or known in _REFUSED:
            raise UrlError(f"{url}: PyMySQL takes no parameter {name!r} from a URL")
        if known in _ELSEWHERE:
            raise UrlError(f"{url}: {name} has its place before the '?', and cannot be given twice")
        if known in _BOOLEANS and text.lower() not in _TRUTH:
            raise UrlError(f"{url}: {name} is yes or no")
        found[known] = _TRUTH[text.lower()] if known in _BOOLEANS else text
    for name in (*_OURS, "write_timeout"):
        found.pop(name, None)
    try:
        flags = int(found.get("client_flag", 0))
        found["connect_timeout"] = float(found.get("connect_timeout", 10))
    except ValueError as exc:
        raise UrlError(f"{url}: client_flag and connect_timeout are numbers") from exc
    # A row that a statement found and did not change is not to be counted: that is how a
    # record that was refused is told from one that applied.
    found["client_flag"] = flags & ~CLIENT.FOUND_ROWS
    found |= {"user": url.username, "password": url.password or "", "database": database}
    found |= {"charset": "utf8mb4", "autocommit": None}
    if _asks_for_tls(found):
        # PyMySQL would check neither, unless told to: whoever names an authority means it.
        found.setdefault("ssl_verify_cert", True)
        found.setdefault("ssl_verify_identity", found["ssl_verify_cert"])
        try:  # it reads the files that these parameters name
            TimedConnection(**found, defer_connect=True)
        except (OSError, ValueError) as exc:
            raise UrlError(f"{url}: PyMySQL does not take an ssl_… parameter: {exc}") from exc
    return [
        {**found, "host": host, "port": port or 3306}
        for host, port in url.hosts or (("localhost", None),)
    ]


def _asks_for_tls(found: Parameters) -> bool:
    """Tell whether a URL has parameters for TLS; without any, it is used where it is offered."""
    wants = any(name.startswith("ssl") and name != "ssl_disabled" for name in found)
    return wants and not found.get("ssl_disabled")


def connect(found: Parameters, seconds: float) -> TimedConnection:
    """Open a connection within so many seconds; the resolution of the host's name has no limit.

    Raises:
        pymysql.Error: it cannot be reached, or refuses.
    """
    seconds = max(0.001, min(seconds, found["connect_timeout"]))
    keywords: Parameters = {**found, "connect_timeout": seconds, "defer_connect": True}
    connection = TimedConnection(**keywords)
    connection.require_tls(_asks_for_tls(found), check_name=found.get("ssl_verify_identity", False))
    connection.keep_to(clock.monotonic() + seconds)
    with understood():
        connection.connect()
    return connection


@contextlib.contextmanager
def understood() -> Generator[None]:
    """Say in an error of PyMySQL's that somebody answers who does not speak the protocol.

    PyMySQL takes what comes apart without looking whether all of it has come.

    Raises:
        pymysql.InternalError: in the place of the parser's own error.
    """
    try:
        yield
    except (AssertionError, IndexError, TypeError, ValueError, struct.error) as exc:
        raise err.InternalError(
            CR.CR_MALFORMED_PACKET, f"not an answer of MySQL or MariaDB: {exc}"
        ) from exc


def is_transient(exc: Exception) -> bool | None:
    """Tell whether trying again may help; None if the exception is not PyMySQL's."""
    if not isinstance(exc, err.Error):
        return None
    if isinstance(exc, err.InterfaceError):
        return True  # PyMySQL's word for a connection that is closed already
    if isinstance(getattr(exc, "original_exception", None), ssl.SSLCertVerificationError):
        return False  # it will not pass the next time either
    return number(exc) in _TRANSIENT


def number(exc: Exception) -> int:
    """Return the number of the server's error, or of the client's; 0 if there is none."""
    first = exc.args[0] if exc.args else 0
    return first if isinstance(first, int) else 0
