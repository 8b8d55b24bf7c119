"""Broken cores: what goes wrong when the line does, or the bytes are bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from upshot.backend import Backend
from upshot.envelope import Envelopes
from upshot.errors import CorruptRecordError, ServiceUnavailableError, UpshotError
from upshot.reading import Reader
from upshot.record import Record
from upshot.service import OpenService
from upshot.url import Url
from upshot.waiting import Hub

from .breaking import put


def _raise_damage() -> None:
    original = Envelopes.open

    def open_(self: Envelopes, key: str, body: bytes) -> Record | UpshotError:
        found = original(self, key, body)
        if isinstance(found, CorruptRecordError):
            raise found
        return found

    put(Envelopes, "open", open_)


def _wait_on_after_damage() -> None:
    original = vars(Hub)["_finish"]

    def finish(self: Hub[Record], ended: Mapping[str, object]) -> None:
        good = {k: each for k, each in ended.items() if not isinstance(each, CorruptRecordError)}
        original(self, good)

    put(Hub, "_finish", finish)


def _end_with_the_first_error() -> None:
    original = vars(Hub)["_cycle"]

    def cycle(self: Hub[Record]) -> None:
        try:
            original(self)
        except Exception as exc:
            raise SystemExit from exc

    put(Hub, "_cycle", cycle)


def _end_every_wait_with_an_error() -> None:
    original = vars(Hub)["_cycle"]

    def cycle(self: Any) -> None:
        try:
            original(self)
        except Exception:
            self._finish({key: ServiceUnavailableError("lost") for key in list(self._sinks)})
            raise

    look = vars(Hub)["_look"]

    def impatient_look(self: Any, keys: Sequence[str], *erased: Any) -> UpshotError | None:
        trouble: UpshotError | None = look(self, keys, *erased)
        if trouble is not None:
            self._finish(dict.fromkeys(keys, trouble))
        return trouble

    put(Hub, "_cycle", cycle)
    put(Hub, "_look", impatient_look)


def _read_once() -> None:
    original = vars(Hub)["_look"]
    seen: set[str] = set()

    def look(self: Hub[Record], keys: Sequence[str], *erased: Any) -> UpshotError | None:
        fresh = [key for key in keys if key not in seen]
        seen.update(fresh)
        found: UpshotError | None = original(self, fresh, *erased)
        return found

    put(Hub, "_look", look)


def _believe_the_second_answer() -> None:
    def recheck(self: object, batch: object, answers: Sequence[bool]) -> list[bool]:
        return list(answers)

    put(Reader, "recheck", recheck)


def _wait_a_minute() -> None:
    original: Any = vars(OpenService)["__init__"]

    def init(
        self: OpenService[Backend], make: Callable[[], Backend], *, url: Url, timeout: float
    ) -> None:
        original(self, make, url=url, timeout=60.0)

    put(OpenService, "__init__", init)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "damage is raised for all": ("FT-4", _raise_damage),
    "damage ends no wait": ("FT-4", _wait_on_after_damage),
    "the hub ends with its first error": ("FT-1", _end_with_the_first_error),
    "an error ends every wait": ("FT-2", _end_every_wait_with_an_error),
    "what is awaited is read once": ("FT-2", _read_once),
    "the answer to a retry is believed": ("FT-3", _believe_the_second_answer),
    "every call has a minute": ("FT-5", _wait_a_minute),
}
"""As in `core`."""

NETWORK: Final = frozenset(name for name, (clause, _) in MUTANTS.items() if clause != "FT-4")
"""Those that show only above a service that is reached by network."""
