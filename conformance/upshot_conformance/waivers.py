"""Waivers: failures that an author knows of, written down so that nothing else passes with them.

A file given by `--known-failures` has one table for each broken clause:

    [[waiver]]
    clause  = "EX-3"
    kind    = "server-limit"            # or "bug", or "unsupported"
    reason  = "the service counts whole seconds"
    issue   = "https://example.org/issues/12"
    message = "AssertionError: kept for 1.0"   # how each failure begins, or a list of beginnings
    expires = 2027-06-30

A waiver lets nothing slip: a failure of another clause, or with another message, stays red; so
does a waiver of a clause that passes, or that was not tested. Waived clauses are shown, and a run
that has any is never *conformant*.
"""

from __future__ import annotations

import datetime
import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from upshot.errors import UpshotError
from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import PROVEN, Standing

__all__ = ["Waiver", "WaiverError", "Waivers"]

_KINDS: Final = ("bug", "unsupported", "server-limit")
_TEXTS: Final = ("clause", "kind", "reason", "issue")


class WaiverError(UpshotError):
    """A waiver file cannot be used; the message says which entry, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """One entry of the file.

    Attributes:
        clause: the id of the clause that is broken.
        kind: `bug`, `unsupported` or `server-limit`.
        reason: why, for whoever reads the report.
        issue: where it is followed.
        message: how the failures of the clause begin, such as `"AssertionError: it is gone"`.
        expires: the last day on which it is accepted.
    """

    clause: str
    kind: str
    reason: str
    issue: str
    message: tuple[str, ...]
    expires: datetime.date

    def matches(self, error: BaseException) -> bool:
        """Tell whether a test failed in the way that was written down."""
        return f"{type(error).__name__}: {error}".startswith(self.message)  # any of them


class Waivers:
    """The waivers of a run.

    Args:
        entries: at most one for each clause.
        name: of the file; "" if there is none.
        digest: SHA-256 of the file, in hexadecimal; "" if there is none.
    """

    def __init__(self, entries: Iterable[Waiver] = (), *, name: str = "", digest: str = "") -> None:
        self.name = name
        self.digest = digest
        self._by_clause = {entry.clause: entry for entry in entries}

    def __iter__(self) -> Iterator[Waiver]:
        return iter(self._by_clause.values())

    def __len__(self) -> int:
        return len(self._by_clause)

    @classmethod
    def read(cls, path: Path, *, today: datetime.date) -> Waivers:
        """Read a file.

        Raises:
            WaiverError: it is missing, is no TOML, or an entry is incomplete, unknown, a second
                one for its clause, or too old.
        """
        try:
            data = path.read_bytes()
            table = tomllib.loads(data.decode())
        except OSError as exc:
            raise WaiverError(f"{path} cannot be read: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise WaiverError(f"{path} cannot be read as TOML: {exc}") from exc
        rows: Any = table.get("waiver", ())
        if set(table) - {"waiver"} or type(rows) not in (list, tuple):
            raise WaiverError(f"{path}: it may have nothing but tables called [[waiver]]")
        entries: list[Waiver] = []
        for number, row in enumerate(rows, 1):
            try:
                entries.append(_entry(row, today, {entry.clause for entry in entries}))
            except ValueError as exc:
                raise WaiverError(f"{path}: waiver {number} {exc}") from None
        return cls(entries, name=path.name, digest=hashlib.sha256(data).hexdigest())

    def covering(self, clause_ids: Iterable[str]) -> Waiver | None:
        """Return the waiver of the first of these clauses that has one."""
        found = (self._by_clause.get(clause_id) for clause_id in clause_ids)
        return next(filter(None, found), None)

    def complaints(
        self, standings: Mapping[str, Standing], asked: Iterable[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the clauses whose waivers do not say what is so, each with what is wrong.

        Args:
            standings: how every clause stands after the run.
            asked: the ids of the clauses that the run was to test; the others are left alone.
        """
        wanted = set(asked)
        for waiver in self:
            standing = standings[waiver.clause]
            if waiver.clause not in wanted or standing in (Standing.WAIVED, Standing.FAILED):
                continue
            if standing in PROVEN:
                yield waiver.clause, "is waived and passes: remove its waiver"
            else:
                yield waiver.clause, f"is waived, and was not tested ({standing})"


def _entry(row: object, today: datetime.date, seen: set[str]) -> Waiver:
    """Read one table; a ValueError says what is wrong with it."""
    waiver = Waiver(**_fields(row))
    if waiver.clause not in CLAUSES:
        raise ValueError(f"is for {waiver.clause!r}, which is no clause of the contract")
    if waiver.clause in seen:
        raise ValueError(f"is a second one for {waiver.clause}")
    if waiver.kind not in _KINDS:
        raise ValueError(f"has the kind {waiver.kind!r}; it must be one of {', '.join(_KINDS)}")
    if waiver.expires < today:
        raise ValueError(f"for {waiver.clause} expired on {waiver.expires}: look at it again")
    return waiver


def _fields(row: object) -> dict[str, Any]:
    """Return what a table holds: the texts, and a date."""
    if not isinstance(row, dict):
        raise ValueError("is no table")
    fields = cast("dict[str, Any]", row)
    expected = {*_TEXTS, "message", "expires"}
    if missing := sorted(expected - set(fields)):
        raise ValueError(f"lacks {', '.join(missing)}")
    if unknown := sorted(set(fields) - expected):
        raise ValueError(f"has the unknown key {', '.join(unknown)}")
    for name in _TEXTS:
        if not isinstance(fields[name], str) or not fields[name].strip():
            raise ValueError(f"needs a text as {name}")
    told: Any = fields["message"]
    messages: Sequence[Any] = [told] if isinstance(told, str) else told
    if (
        not hasattr(messages, "append")
        or not messages
        or not all(isinstance(each, str) and each.strip() for each in messages)
    ):
        raise ValueError("needs a text, or a list of texts, as message")
    if type(fields["expires"]) is not datetime.date:
        raise ValueError("needs a date as expires, such as 2027-06-30, without quotes")
    return {**fields, "message": tuple(messages)}
