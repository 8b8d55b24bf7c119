"""Broken cores: idempotency keys. `core` runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from upshot.backend import StoredRecord
from upshot.claims import Claim, Claims
from upshot.client import ResultClient
from upshot.keys import Keyspace
from upshot.record import Record

from .breaking import put

_Settled = Iterator[list[tuple[int, Claim]]]


def _claim_key(edit: Callable[[str, str], tuple[str, str]]) -> None:
    """Let claims be stored for another task, or another key, than are given."""
    original = Keyspace.claim

    def claim(self: Keyspace, name: str, key: str) -> str:
        return original(self, *edit(name, key))

    put(Keyspace, "claim", claim)


def _claims_are_records() -> None:
    def claim(self: Keyspace, name: str, key: str) -> str:
        return self.key(key)

    put(Keyspace, "claim", claim)


def _seal(edit: Callable[[StoredRecord], StoredRecord]) -> None:
    original = Claims.sealed

    def sealed(self: Claims, claim: Claim) -> StoredRecord:
        return edit(original(self, claim))

    put(Claims, "sealed", sealed)


def _everybody_asks_for_himself() -> None:
    original = Claims.take

    def take(self: Claims, wanted: Sequence[Claim]) -> _Settled:
        for settled in original(self, wanted):
            yield [(at, claim._replace(task_id=wanted[at].task_id)) for at, claim in settled]

    put(Claims, "take", take)


def _ours_are_told_last() -> None:
    original = Claims.take

    def take(self: Claims, wanted: Sequence[Claim]) -> _Settled:
        yield [each for settled in original(self, wanted) for each in settled]

    put(Claims, "take", take)


def _nothing_is_refused() -> None:
    def require(self: Claims, expires: float | None) -> None:
        pass

    put(Claims, "require", require)


def _overdue(answer: bool) -> Callable[[], None]:
    def is_overdue(self: Claims, claim: Claim, key: str, seen: object) -> bool:
        return answer

    return lambda: put(Claims, "_is_overdue", is_overdue)


def _taking_over_makes_a_new_task() -> None:
    original = vars(Claims)["_opened"]

    def opened(self: Claims, wanted: Claim, body: object) -> Claim:
        claim: Claim = original(self, wanted, body)
        return claim if claim.is_sent else claim._replace(task_id=wanted.task_id)

    put(Claims, "_opened", opened)


def _forgetting_a_task_releases_its_key() -> None:
    original = ResultClient.forget
    kept: dict[str, tuple[str, str]] = {}
    take = Claims.take

    def noting(self: Claims, wanted: Sequence[Claim]) -> _Settled:
        for settled in take(self, wanted):
            kept.update({claim.task_id: (claim.name, claim.key) for _, claim in settled})
            yield settled

    def forget(self: ResultClient, task_ids: Any) -> None:
        ids = list(task_ids)
        original(self, ids)
        for task_id in ids:
            if task_id in kept:
                self.claims.release(*kept[task_id])

    put(Claims, "take", noting)
    put(ResultClient, "forget", forget)


def _any_record_is_a_claim() -> None:
    original = Record.decode

    def opened(self: Claims, wanted: Claim, body: bytes) -> Claim:
        record = original(body)
        return wanted._replace(task_id=record.task_id, is_sent=record.is_terminal)

    put(Claims, "_opened", opened)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "whoever asks holds the key": ("KY-1", _everybody_asks_for_himself),
    "claims are told when all keys are known": ("KY-1", _ours_are_told_last),
    "keys are kept by whatever cannot": ("KY-1", _nothing_is_refused),
    "keys have no time": ("KY-2", lambda: _seal(lambda claim: claim._replace(expires=None))),
    "forgetting a task releases its key": ("KY-2", _forgetting_a_task_releases_its_key),
    "tasks share their keys": ("KY-3", lambda: _claim_key(lambda name, key: ("", key))),
    "keys ignore case": ("KY-2", lambda: _claim_key(lambda name, key: (name, key.lower()))),
    "names and keys run together": ("KY-3", lambda: _claim_key(lambda name, key: ("", name + key))),
    "claims are records": ("KY-3", _claims_are_records),
    "any record is a claim": ("KY-3", _any_record_is_a_claim),
    "nobody waits for the holder": ("KY-4", _overdue(True)),
    "nobody takes over": ("KY-4", _overdue(False)),
    "taking over makes a new task": ("KY-4", _taking_over_makes_a_new_task),
}
"""What is broken: which clause must go red, and how to break it."""
