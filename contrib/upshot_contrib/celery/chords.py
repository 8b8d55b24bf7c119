"""Chords: the body runs once, when every part of the header has returned.

A backend of upshot has no counter. What it has is a conditional store, and that is enough:

    <chord>/parts/0, /1, …   a log: each returning part stores its result in the first free place
    <chord>/parts            where the log ends, or a little earlier: a hint, which only grows
    <chord>/size             how many parts there are
    <chord>/extras/0, /1, …  a second log, of what `add_to_chord` added
    <chord>/extras           where that one ends
    <chord>/claim            who sends the body, and later that it was sent

A place is taken by whoever stores there first, so the log has no gaps: whoever takes place k knows
that k others have returned before. The part that takes the last one reads them all. A header task
may run twice (redelivered after a lost worker), so parts are told apart by task id and position in
the header, and the first of two counts. Whoever sees all of them, and there may be several, stores
a claim; only one such store applies. It expires, so that the body is not lost with a worker that
dies before it has sent it, if that worker's part is delivered again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final, NamedTuple

from upshot import states
from upshot.backend import StoredRecord
from upshot.client import ResultClient
from upshot.envelope import unfinished
from upshot.errors import UpshotError
from upshot.record import Payload, Record

__all__ = ["Chords", "Part"]

_PROBE: Final = 16  # places looked at together when the first one tried is taken
_LONGEST_NAME: Final = 200  # bytes of a group id; with what follows it, it must fit into a task id
_SENT_FOR: Final = 3600.0  # seconds that a sent body is remembered, for parts that return again


class Part(NamedTuple):
    """What one task of the header returned.

    Attributes:
        task_id: which task.
        position: its place in the header; None for last.
        state: how it ended.
        outcome: its value or its failure.
    """

    task_id: str
    position: int | None
    state: str
    outcome: Payload


class Chords:
    """The chords of one namespace.

    Args:
        client: where they are kept; with a namespace of its own.
        expires: seconds that results are kept; None for ever. What belongs to a chord is kept for
            30 days at least, until it is complete.
    """

    def __init__(self, client: ResultClient, *, expires: float | None) -> None:
        self._client = client
        self._expires = unfinished(expires)

    def begin(self, group_id: str) -> None:
        """Forget that a chord of this id was complete before: it is sent once more."""
        self._client.forget([f"{_name(group_id)}/claim"], plain=True)

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts there are; called before the last one is sent."""
        name = f"{_name(group_id)}/size"
        self._client.store_encoded([self._number(name, size, rank=1)])

    def add_extra(self, group_id: str, task_id: str) -> None:
        """Say that there is one part more, `task_id`."""
        log = f"{_name(group_id)}/extras"
        self._append(log, Record(log, "EXTRA", name=task_id), self._numbers(log)[0] or 0)

    def add(self, group_id: str, part: Part, *, token: str, claim_for: float) -> list[Part] | None:
        """Keep a part that has returned; harmless if done again with the same token.

        Args:
            group_id: which chord.
            part: what returned.
            token: names the caller, as nothing else does.
            claim_for: seconds for which nobody else sends the body.

        Returns:
            All parts in the header's order, if the caller is to send the body; otherwise None.
            Then it calls `finish`.
        """
        chord = _name(group_id)
        tail, size, extra, claim = self._numbers(
            f"{chord}/parts", f"{chord}/size", f"{chord}/extras", f"{chord}/claim"
        )
        if claim == _SENT:
            return None
        record = Record(
            f"{chord}/parts",
            part.state,
            name=part.task_id,
            info=Payload("json", json.dumps(part.position).encode()),
            outcome=part.outcome,
        )
        place = self._append(f"{chord}/parts", record, tail or 0)
        if size is None or place + 1 >= size + (extra or 0):
            # What was read before the part was stored may be out of date.
            size, extra = self._numbers(f"{chord}/size", f"{chord}/extras")
        total = (size or 0) + (extra or 0)
        if size is None or place + 1 < total:
            return None
        parts = self._parts(chord, place + 1)
        if len(parts) < total or not self._claim(chord, token, claim_for):
            return None
        return sorted(parts, key=lambda each: (each.position is None, each.position or 0))

    def finish(self, group_id: str) -> None:
        """Remember that the body was sent, or never will be, and remove everything else."""
        chord = _name(group_id)
        sent = self._number(f"{chord}/claim", _SENT, rank=2)
        self._client.store_encoded([sent._replace(barrier=states.NEVER, expires=_SENT_FOR)])
        logs = (f"{chord}/parts", f"{chord}/extras")
        places = [
            f"{log}/{place}"
            for log, tail in zip(logs, self._numbers(*logs), strict=True)
            for place in range(tail or 0)
        ]
        self._client.forget([*places, *logs, f"{chord}/size"], plain=True)

    def _append(self, log: str, record: Record, place: int) -> int:
        """Store a record in the first free place of a log from `place` on; return which.

        The hint is stored together with it. It is right even if the place was another's.
        """
        while True:
            taken = self._encoded(record._replace(task_id=f"{log}/{place}"))
            hint = self._number(log, place + 1, rank=place + 1)
            applied, _ = self._client.store_encoded([taken, hint])
            if applied:
                return place
            place = self._first_free(log, place + 1)

    def _first_free(self, log: str, place: int) -> int:
        while True:
            ids = [f"{log}/{number}" for number in range(place, place + _PROBE)]
            for number, found in enumerate(self._client.load_many(ids), start=place):
                if found is None:
                    return number
            place += _PROBE

    def _parts(self, chord: str, count: int) -> list[Part]:
        """Return the parts in the first `count` places; of each one, what it returned first."""
        parts: dict[tuple[str, int | None], Part] = {}
        for found in self._client.load_many(f"{chord}/parts/{place}" for place in range(count)):
            if isinstance(found, UpshotError):
                raise found
            if found is None or found.info is None or found.outcome is None:
                continue  # removed by another that was faster
            position = json.loads(found.info.body)
            part = Part(found.name, position, found.state, found.outcome)
            parts.setdefault((part.task_id, position), part)
        return list(parts.values())

    def _claim(self, chord: str, token: str, seconds: float) -> bool:
        record = Record(f"{chord}/claim", "CLAIMED", token=token)
        stored = self._client.encode(record, expires=seconds)._replace(rank=1, barrier=2)
        (applied,) = self._client.store_encoded([stored])
        if applied:
            return True
        claim = self._client.load(record.task_id)  # it may be ours, if the answer was lost before
        return claim is not None and claim.token == token

    def _numbers(self, *ids: str) -> list[int | None]:
        """Return the numbers stored under the ids; None for those that have none."""
        found = self._client.load_many(ids)
        for each in found:
            if isinstance(each, UpshotError):
                raise each
        return [each.attempt if isinstance(each, Record) else None for each in found]

    def _number(self, name: str, number: int, *, rank: int) -> StoredRecord:
        """Return what keeps a number of 1 or more, and replaces one of the same or a lower rank."""
        record = Record(name, "NUMBER", attempt=number)
        return self._client.encode(record, expires=self._expires)._replace(rank=rank, barrier=rank)

    def _encoded(self, record: Record) -> StoredRecord:
        """Return what stays once it is stored."""
        stored = self._client.encode(record, expires=self._expires)
        return stored._replace(rank=1, barrier=states.NEVER)


_SENT: Final = 2  # the number under "claim" once the body was sent; before, there it is 1


def _name(group_id: str) -> str:
    """Return what the ids of a chord begin with."""
    if len(group_id.encode()) <= _LONGEST_NAME:
        return group_id
    return hashlib.sha256(group_id.encode()).hexdigest()
