"""What `upshot doctor` asks a PostgreSQL: version, role, durability, room for connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple, final

from upshot.finding import Advice, Finding, Level
from upshot_backends.sql.server_diagnosis import ServerDiagnosis

__all__ = ["PostgresqlDiagnosis"]

_OLDEST: Final = 120_000  # of `server_version_num`
_CROWDED: Final = 0.8  # of the connections that there may be

_FACTS: Final = """
    SELECT current_setting('server_version'), current_setting('server_version_num')::int,
        pg_is_in_recovery(), current_setting('server_encoding'),
        current_setting('synchronous_commit'), current_setting('fsync'),
        current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity),
        current_user::text
"""


class _Facts(NamedTuple):
    """The answer to `_FACTS`, in its order."""

    version: str
    number: int
    in_recovery: bool
    encoding: str
    synchronous: str
    fsync: str
    most: int
    connected: int
    user: str


@final
class PostgresqlDiagnosis(ServerDiagnosis):
    """The server of one URL.

    Args:
        database: its tables, which may not be there yet.
    """

    now = "SELECT extract(epoch FROM clock_timestamp())::float8"
    advice: ClassVar[Advice] = (
        (
            ("authentication failed", "password supplied", 'role "'),
            "correct user and password in the URL",
        ),
        (('database "',), "correct the database in the URL, or create it: CREATE DATABASE"),
        (
            ("permission denied for schema",),
            (
                "let somebody who may run what `upshot backends ddl URL` prints, and grant this "
                "user SELECT, INSERT, UPDATE, DELETE on its tables; or GRANT CREATE ON SCHEMA "
                "public TO USER"
            ),
        ),
        (
            ("permission denied for table", "permission denied for sequence"),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON the table to the user of the URL",
        ),
        (
            ("read-only transaction", "recovery is in progress"),
            (
                "name the primary in the URL; of several hosts, ?target_session_attrs=read-write "
                "takes the one that can be written to"
            ),
        ),
        (
            ("too many clients", "remaining connection slots"),
            "raise max_connections, or put PgBouncer between",
        ),
        (("does not support ssl",), "leave sslmode out of the URL, or let the server speak TLS"),
        (("no pg_hba.conf entry",), "let pg_hba.conf admit this user from this host"),
    )

    def diagnose(self, timeout: float) -> list[Finding]:
        """Ask the server; the tables are not made."""
        facts = _Facts(*self._asked(_FACTS, timeout))
        return [
            _version(facts),
            *_role(facts),
            *_durability(facts),
            *_connections(facts),
            self._clock(timeout),
        ]


def _version(facts: _Facts) -> Finding:
    said = f"PostgreSQL {facts.version}, as user {facts.user!r}"
    if facts.number < _OLDEST:
        return Finding(Level.PROBLEM, f"{said}: too old", change="upgrade to 12 or newer")
    return Finding(Level.OK, said)


def _role(facts: _Facts) -> Iterator[Finding]:
    if facts.in_recovery:
        yield Finding(
            Level.PROBLEM,
            "it is a standby, which takes no writes",
            change="name the primary in the URL; of several hosts, "
            "?target_session_attrs=read-write takes the one that can be written to",
        )
    if facts.encoding != "UTF8":
        yield Finding(
            Level.PROBLEM,
            f"the database is encoded in {facts.encoding}, which has no room for every text",
            change="make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )


def _durability(facts: _Facts) -> Iterator[Finding]:
    if facts.fsync == "off":
        yield Finding(
            Level.WARNING,
            "fsync is off",
            "a crash of the machine can lose results and messages, and corrupt the database",
            "fsync = on in postgresql.conf, unless all of it may be lost",
            capability="persistent",
        )
    elif facts.synchronous == "off":
        yield Finding(
            Level.WARNING,
            "synchronous_commit is off",
            "a crash of the server loses the results and messages of the last moment",
            "synchronous_commit = on, for this user or database",
            capability="persistent",
        )


def _connections(facts: _Facts) -> Iterator[Finding]:
    if facts.connected > facts.most * _CROWDED:
        yield Finding(
            Level.WARNING,
            f"{facts.connected} of {facts.most} connections are in use",
            "each process of a worker takes some; who comes when all are taken is refused",
            "raise max_connections, or put PgBouncer between",
        )
