"""Broken cores: readers of streams that miss, skip, repeat or invent something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from upshot import reading, streaming
from upshot.client import ResultClient
from upshot.record import Record

from .breaking import put as _break

_PLACE: Final[Any] = vars(streaming)["_Place"]


def _method(name: str) -> Any:
    return getattr(_PLACE, name)


def _begin_at_zero() -> None:
    original = _method("__init__")

    def begin(self: Any, client: ResultClient, task_id: str, start: int) -> None:
        original(self, client, task_id, 0)

    _break(_PLACE, "__init__", begin)


def _skip_holes() -> None:
    def leading(found: list[Any]) -> list[Record]:
        return [each for each in found if isinstance(each, Record)]

    _break(streaming, "_leading", leading)


def _count_nothing() -> None:
    def count_of(record: Record) -> int | None:
        return None

    _break(streaming, "count_of", count_of)


def _end_in_silence() -> None:
    original: Any = vars(streaming.Stream)["__init__"]

    def make(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **{**options, "end": repr})

    _break(streaming.Stream, "__init__", make)


def _read_one_batch() -> None:
    original = _method("look")

    def look(self: Any, deadline: Any) -> Any:
        found = original(self, deadline)
        if self.index >= reading.BATCH:
            self.end = self.end or self._client.load(self._task_id)
            self.is_behind = False
        return found

    _break(_PLACE, "look", look)


def _await_only_the_end() -> None:
    def wanted(self: Any) -> Sequence[str]:
        fresh = {self._key} - self.awaited
        self.awaited |= fresh
        return list(fresh)

    _break(_PLACE, "wanted", wanted)


def _leave_what_is_awaited() -> None:
    original = _method("heed")

    def heed(self: Any, ended: Any) -> None:
        original(self, ended)
        self.awaited = set()

    _break(_PLACE, "heed", heed)


def _forget_the_record_alone() -> None:
    def delete_items(self: Any, keys: Any, task_ids: Any) -> None:
        """Never does."""

    _break(reading.Reader, "delete_items", delete_items)


def _stream_undeclared() -> None:
    def make(self: Any, origin: Any, task_id: str, **options: Any) -> None:
        """Refuses nothing."""

    _break(streaming.Stream, "__init__", make)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "a stream is one batch": ("SM-1", _read_one_batch),
    "readers await only the end": ("SM-3", _await_only_the_end),
    "readers begin at zero": ("SM-4", _begin_at_zero),
    "readers leave what they await": ("SM-4", _leave_what_is_awaited),
    "holes are skipped": ("SM-5", _skip_holes),
    "nobody counts items": ("SM-5", _count_nothing),
    "streams end in silence": ("SM-5", _end_in_silence),
    "forgetting leaves items": ("SM-6", _forget_the_record_alone),
    "streams are never refused": ("CP-2", _stream_undeclared),
}
"""Name: the clause that must go red, and what breaks the core."""
