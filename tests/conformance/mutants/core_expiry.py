"""Broken cores: expiry, batches, and what is not declared. `core` runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from upshot.backend import Capabilities, StoredRecord
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.envelope import AS_SET, Envelopes
from upshot.errors import UpshotError
from upshot.reading import Reader
from upshot.record import Record

from .breaking import put

_Expiry = float | None
_Found = Record | UpshotError | None


def _seal(edit: Callable[[_Expiry, Capabilities], tuple[_Expiry, Capabilities]]) -> None:
    """Let records be sealed with another expiry, or for other capabilities, than are given."""
    original = Envelopes.seal

    def seal(
        self: Envelopes,
        record: Record,
        capabilities: Capabilities,
        *,
        expires: _Expiry = AS_SET,
        reply_to: str = "",
    ) -> StoredRecord:
        expires, capabilities = edit(expires, capabilities)
        return original(self, record, capabilities, expires=expires, reply_to=reply_to)

    put(Envelopes, "seal", seal)


def _zero_is_for_ever() -> None:
    _seal(lambda expires, declared: (expires or None, declared))


def _minus_one_is_as_set() -> None:
    _seal(lambda expires, declared: (AS_SET if expires == -1 else expires, declared))


def _infinity_is_taken() -> None:
    _seal(lambda expires, declared: (1e9 if expires == float("inf") else expires, declared))


def _negative_is_soon() -> None:
    def edit(expires: _Expiry, declared: Capabilities) -> tuple[_Expiry, Capabilities]:
        return (0.001 if expires is not None and expires <= 0 else expires), declared

    _seal(edit)


def _none_is_as_set() -> None:
    _seal(lambda expires, declared: (AS_SET if expires is None else expires, declared))


def _undeclared_expiry_is_dropped() -> None:
    def edit(expires: _Expiry, declared: Capabilities) -> tuple[_Expiry, Capabilities]:
        return (expires if declared.expiry_resolution is not None else None), declared

    _seal(edit)


def _no_limit_is_known() -> None:
    _seal(lambda expires, declared: (expires, replace(declared, max_record_bytes=2**40)))


def _undeclared_scan_is_empty() -> None:
    original = ResultClient.scan

    def scan(self: ResultClient) -> Iterator[Record]:
        return original(self) if self.capabilities.scan else iter(())

    put(ResultClient, "scan", scan)


def _scan_refuses_late() -> None:
    original = ResultClient.scan

    def scan(self: ResultClient) -> Iterator[Record]:
        yield from original(self)

    put(ResultClient, "scan", scan)


def _a_batch_is_stored_as_it_is_read() -> None:
    def store_many(
        self: ResultClient, records: Iterable[Record], *, expires: _Expiry = AS_SET
    ) -> list[bool]:
        return [self.store(record, expires=expires) for record in records]

    put(ResultClient, "store_many", store_many)


def _load(edit: Callable[[Sequence[_Found]], Sequence[_Found]]) -> None:
    original = Reader.records

    def records(
        self: Reader, keys: Sequence[str], deadline: Deadline | None = None
    ) -> list[_Found]:
        return list(edit(original(self, keys, deadline)))

    put(Reader, "records", records)


def _unknown_ids_are_left_out() -> None:
    def edit(found: Sequence[_Found]) -> Sequence[_Found]:
        return found if len(found) == 1 else [each for each in found if each is not None]

    _load(edit)


def _the_rest_of_a_batch_is_dropped() -> None:
    _load(lambda found: found[: max(1000, len(found) // 1000 * 1000)])


def _ids_are_read_twice() -> None:
    original = ResultClient.load_many

    def load_many(self: ResultClient, task_ids: Iterable[str]) -> list[_Found]:
        if not any(True for _ in task_ids):
            return []
        return original(self, task_ids)

    put(ResultClient, "load_many", load_many)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "no time is for ever": ("EX-3", _zero_is_for_ever),
    "minus one is as set": ("EX-3", _minus_one_is_as_set),
    "infinity is a time": ("EX-3", _infinity_is_taken),
    "negative times are short": ("EX-3", _negative_is_soon),
    "None is as set": ("EX-3", _none_is_as_set),
    "unknown ids are left out": ("BT-1", _unknown_ids_are_left_out),
    "the rest of a batch is dropped": ("BT-1", _the_rest_of_a_batch_is_dropped),
    "ids are read twice": ("BT-1", _ids_are_read_twice),
    "a batch is stored as it is read": ("BT-3", _a_batch_is_stored_as_it_is_read),
    "undeclared expiry is dropped": ("CP-2", _undeclared_expiry_is_dropped),
    "no limit is known": ("CP-2", _no_limit_is_known),
    "undeclared listings are empty": ("CP-2", _undeclared_scan_is_empty),
    "listings are refused late": ("CP-2", _scan_refuses_late),
}
"""What is broken: which clause must go red, and how to break it."""
