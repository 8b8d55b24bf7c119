"""What `upshot doctor` asks a MySQL or MariaDB: version, durability, sizes, whether it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple, final

from upshot.finding import Advice, Finding, Level, size
from upshot_backends.sql.server_diagnosis import ServerDiagnosis

__all__ = ["MysqlDiagnosis"]

_OLDEST_MARIADB: Final = (10, 6)
_OLDEST_MYSQL: Final = (8, 0)
_PACKET: Final = 16 * 2**20  # bytes: MariaDB's default, for records of 11 MiB
_CROWDED: Final = 0.8  # of the connections that there may be

_FACTS: Final = """
    SELECT VERSION(), @@max_allowed_packet, @@global.read_only, @@innodb_flush_log_at_trx_commit,
        @@log_bin, @@binlog_format, @@max_connections, CURRENT_USER(),
        (SELECT COUNT(*) FROM information_schema.processlist)
"""


class _Facts(NamedTuple):
    """The answer to `_FACTS`, in its order."""

    version: str
    packet: int
    read_only: int
    flush: int
    has_log: int
    log_format: str
    most: int
    user: str
    connected: int


@final
class MysqlDiagnosis(ServerDiagnosis):
    """The server of one URL.

    Args:
        database: its tables, which may not be there yet.
    """

    now = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    tick = 1e-6
    advice: ClassVar[Advice] = (
        (
            ("(using password",),
            "correct user and password in the URL",
        ),
        (
            ("create command denied", "access denied for user"),
            (
                "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX ON DATABASE.* TO the user; "
                "or let somebody who may run what `upshot backends ddl URL` prints"
            ),
        ),
        (
            ("command denied",),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON the table to the user of the URL",
        ),
        (("unknown database",), "correct the database in the URL, or create it: CREATE DATABASE"),
        (("read-only", "read_only"), "name the primary in the URL: this server takes no writes"),
        (
            ("binlog_format", "binlog format"),
            "set binlog_format = ROW: what upshot writes depends on what is there",
        ),
        (("too many connections",), "raise max_connections"),
        (("not an answer of mysql", "lost connection"), "correct the port in the URL"),
    )

    def diagnose(self, timeout: float) -> list[Finding]:
        """Ask the server; the tables are not made."""
        facts = _Facts(*self._asked(_FACTS, timeout))
        return [
            _version(facts),
            *_writing(facts),
            *_durability(facts),
            *_sizes(facts),
            self._clock(timeout),
        ]


def _version(facts: _Facts) -> Finding:
    is_mariadb = "mariadb" in facts.version.lower()
    name, oldest = ("MariaDB", _OLDEST_MARIADB) if is_mariadb else ("MySQL", _OLDEST_MYSQL)
    number = facts.version.partition("-")[0]
    said = f"{name} {number}, as user {facts.user}"
    known = tuple(int(part) for part in number.split(".") if part.isdigit())
    if known and known < oldest:
        needed = ".".join(map(str, oldest))
        return Finding(Level.PROBLEM, f"{said}: too old", change=f"upgrade to {needed} or newer")
    return Finding(Level.OK, said)


def _writing(facts: _Facts) -> Iterator[Finding]:
    if facts.read_only:
        yield Finding(
            Level.PROBLEM,
            "it is read-only, as a replica is",
            change="name the primary in the URL",
        )
    if facts.has_log and facts.log_format == "STATEMENT":
        yield Finding(
            Level.PROBLEM,
            "its binary log has statements, which READ COMMITTED transactions cannot be written to",
            change="set binlog_format = ROW or MIXED",
        )


def _durability(facts: _Facts) -> Iterator[Finding]:
    if facts.flush != 1:
        yield Finding(
            Level.WARNING,
            f"innodb_flush_log_at_trx_commit is {facts.flush}",
            "a crash of the machine loses the results and messages of the last second",
            "set innodb_flush_log_at_trx_commit = 1",
            capability="persistent",
        )


def _sizes(facts: _Facts) -> Iterator[Finding]:
    if facts.packet < _PACKET:
        yield Finding(
            Level.NOTE,
            f"max_allowed_packet is {size(facts.packet)}",
            "records and messages can have about two thirds of that; longer ones are refused",
            "set max_allowed_packet = 16M or more",
        )
    if facts.connected > facts.most * _CROWDED:
        yield Finding(
            Level.WARNING,
            f"{facts.connected} of {facts.most} connections are in use",
            "each process of a worker takes some; who comes when all are taken is refused",
            "raise max_connections",
        )
