"""Statements on their way to the server, below psycopg's own cursors.

For each statement anew, psycopg's cursors look for what else they could be asked for, which takes
the client twice as long as all the rest. What stands here runs one statement at a time; values and
rows are written and read by psycopg.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, final

from psycopg import errors, generators, pq
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer

from upshot import clock
from upshot_backends.sql.postgresql.driver import OutdatedError, TimedConnection

__all__ = ["PatientCursor", "milliseconds"]

_PLACEHOLDER: Final = re.compile(r"%(?:\((\w+)\)([sbt])|%)")
_FORMATS: Final = {"s": PyFormat.AUTO, "b": PyFormat.BINARY, "t": PyFormat.TEXT}
_DONE: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_BINARY: Final = 1  # libpq's number for rows that are not text
_OUTDATED: Final = (errors.FeatureNotSupported, errors.InvalidSqlStatementName)
"""A prepared statement would have other columns than it had, or is not there."""
_Typed = tuple[str, tuple[int, ...]]  # a statement, and the types of its parameters
_USED_OFTEN: Final = 3  # uses after which a statement is prepared, where that is possible


@final
class PatientCursor:
    """A cursor that gives each statement a parameter `patience`: how long to wait for locks.

    Statements with parameters get their rows in binary form, without which a body would travel at
    twice its length.

    Attributes:
        prepares: whether statements are prepared that are used again: what one server connection
            of a proxy knows, others do not.
    """

    def __init__(self, timed: TimedConnection) -> None:
        self.prepares = False
        self._timed = timed
        self._pgconn = timed.pgconn
        self._transformer = Transformer(timed)
        self._result: pq.abc.PGresult | None = None
        self._uses: dict[_Typed, int] = {}
        self._prepared: dict[_Typed, bytes] = {}  # names

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed or found."""
        return 0 if self._result is None else self._result.command_tuples or 0

    def execute(self, statement: str, values: Mapping[str, object] | None = None, /) -> object:
        """Run a statement with named parameters; without any, several statements."""
        self._result = None
        is_prepared = False
        if values is None:
            self._pgconn.send_query(statement.encode())
        else:
            known = _parsed(statement)
            if known.is_patient:
                patience = milliseconds(self._timed.until - clock.monotonic())
                values = {**values, "patience": f"{patience}ms"}
            is_prepared = self._send(statement, known, [values[name] for name in known.names])
        try:
            self._result = self._answer()
        except _OUTDATED as exc:
            if not is_prepared:
                raise
            self._timed.close()  # as if it were lost: the others have prepared the same
            raise OutdatedError(str(exc)) from exc
        return None

    def fetchall(self) -> list[Any]:
        """Return all rows; afterwards nothing of them is kept."""
        result, self._result = self._result, None
        if result is None:
            raise AssertionError("no statement, or its rows were fetched")
        transformer = self._transformer
        transformer.set_pgresult(result)
        try:
            return transformer.load_rows(0, result.ntuples, tuple)
        finally:
            transformer.set_pgresult(None)

    def _send(self, statement: str, known: _Parsed, values: Sequence[object]) -> bool:
        """Send a statement; tell whether it was prepared."""
        transformer, pgconn = self._transformer, self._pgconn
        written: Sequence[Buffer | None] = transformer.dump_sequence(values, known.formats)
        types = transformer.types or ()
        name = self._prepare(known.text, (statement, types)) if self.prepares else None
        if name is None:
            pgconn.send_query_params(known.text, written, types, transformer.formats, _BINARY)
        else:
            pgconn.send_query_prepared(name, written, transformer.formats, _BINARY)
        return name is not None

    def _prepare(self, text: bytes, typed: _Typed) -> bytes | None:
        """Return the name of a prepared statement; None if it is not used often."""
        name = self._prepared.get(typed)
        if name is None:
            uses = self._uses[typed] = self._uses.get(typed, 0) + 1
            if uses >= _USED_OFTEN:
                name = b"upshot_%d" % len(self._prepared)
                self._pgconn.send_prepare(name, text, typed[1])
                self._answer()
                self._prepared[typed] = name
        return name

    def _answer(self) -> pq.abc.PGresult:
        result: pq.abc.PGresult = self._timed.wait(generators.execute(self._pgconn))[-1]
        if result.status not in _DONE:
            raise errors.error_from_result(result)
        return result


class _Parsed(NamedTuple):
    """A statement as the server takes it.

    Attributes:
        text: with numbers for parameters.
        names: of the parameters, in the order of their numbers.
        formats: in which to send them.
        is_patient: whether one of them is `patience`.
    """

    text: bytes
    names: tuple[str, ...]
    formats: tuple[PyFormat, ...]
    is_patient: bool


@functools.lru_cache(maxsize=512)  # a process has some thirty for each set of tables
def _parsed(statement: str) -> _Parsed:
    """Read a statement with `%(name)s` for parameters and `%%` for a percent sign."""
    formats: dict[str, PyFormat] = {}

    def number(found: re.Match[str]) -> str:
        name, form = found.groups()
        if name is None:
            return "%"
        formats.setdefault(name, _FORMATS[form])
        return f"${list(formats).index(name) + 1}"

    text = _PLACEHOLDER.sub(number, statement).encode()
    return _Parsed(text, tuple(formats), tuple(formats.values()), "patience" in formats)


def milliseconds(seconds: float) -> int:
    """Return a timeout as the server takes it: at least 1, because 0 stands for "never"."""
    return max(1, round(seconds * 1000))
