"""Broken cores, for clauses that no backend can break alone: a pytest plugin for a subprocess.

Loaded with `-p core_mutants`, it breaks what the environment variable UPSHOT_MUTANT names.
"""

from __future__ import annotations

import importlib
import os
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from upshot import keys, outcome
from upshot.failure import Failure, describing, rebuilding
from upshot.result import AsyncResult
from upshot.serializers import JsonSerializer

_KEPT: Final[list[object]] = []


def _break(owner: Any, name: str, replacement: object) -> None:
    assert hasattr(owner, name), f"there is no {name} to break any more"
    setattr(owner, name, replacement)


def _edit_failures(edit: Callable[[dict[str, Any]], None]) -> None:
    original = Failure.to_data

    def to_data(self: Failure) -> dict[str, Any]:
        data = original(self)
        edit(data)
        return data

    _break(Failure, "to_data", to_data)


def _edit_values(edit: Callable[[Any], Any]) -> None:
    original = JsonSerializer.loads

    def loads(self: JsonSerializer, data: bytes) -> Any:
        return edit(original(self, data))

    _break(JsonSerializer, "loads", loads)


def _drop_args(data: dict[str, Any]) -> None:
    data["exceptions"][0].update(args=[], opaque=[])


def _cut_traceback(data: dict[str, Any]) -> None:
    data["traceback"] = data["traceback"][:256]


def _drop_notes(data: dict[str, Any]) -> None:
    data["traceback"] = re.sub(r"^the .* note.*\n", "", data["traceback"], flags=re.MULTILINE)
    data["exceptions"][0]["notes"] = []


def _import_classes() -> None:
    def look_up(module: str, qualname: str) -> type | None:
        found: Any = getattr(importlib.import_module(module), qualname, None)
        return found if isinstance(found, type) else None

    _break(rebuilding, "loaded_class", look_up)


def _trust_arguments() -> None:
    def travels(self: object, value: object) -> bool:
        return True

    _break(vars(describing)["_Describer"], "_travels", travels)


def _one_exception_for_all() -> None:
    original = rebuilding.rebuild
    made: dict[str, Exception] = {}

    def rebuild(failure: Failure) -> Exception:
        return made.setdefault(repr(failure), original(failure))

    _break(outcome, "rebuild", rebuild)


def _keep_exceptions() -> None:
    original = describing.describe

    def describe(exc: BaseException, *, encodable: Callable[[object], bool]) -> Failure:
        _KEPT.append(exc)
        return original(exc, encodable=encodable)

    _break(outcome, "describe", describe)


def _take_any_id() -> None:
    _break(keys, "check_task_id", str)


def _encode_anything() -> None:
    original = JsonSerializer.dumps

    def dumps(self: JsonSerializer, value: object, *, root: str = "value") -> bytes:
        return original(self, repr(value) if type(value) is object else value, root=root)

    _break(JsonSerializer, "dumps", dumps)


def _forget_when_dropped() -> None:
    def ask(self: AsyncResult[Any]) -> None:
        self.forget()

    _break(AsyncResult, "__del__", ask)


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "any id is taken": ("ID-3", _take_any_id),
    "booleans become integers": ("RS-1", lambda: _edit_values(lambda v: 1 if v is True else v)),
    "falsy values become None": ("RS-2", lambda: _edit_values(lambda v: v or None)),
    "text is normalised": (
        "RS-3",
        lambda: _edit_values(lambda v: unicodedata.normalize("NFC", v) if type(v) is str else v),
    ),
    "integers go through floats": (
        "RS-4",
        lambda: _edit_values(lambda v: int(float(v)) if type(v) is int and abs(v) < 2**99 else v),
    ),
    "bytes become text": (
        "RS-5",
        lambda: _edit_values(lambda v: v.decode("latin-1") if type(v) is bytes else v),
    ),
    "objects become their repr": ("RS-7", _encode_anything),
    "arguments are dropped": ("FL-1", lambda: _edit_failures(_drop_args)),
    "tracebacks are cut": ("FL-2", lambda: _edit_failures(_cut_traceback)),
    "notes are dropped": ("FL-3", lambda: _edit_failures(_drop_notes)),
    "classes are imported": ("FL-4", _import_classes),
    "arguments are trusted": ("FL-5", _trust_arguments),
    "one exception for all": ("FL-6", _one_exception_for_all),
    "exceptions are kept": ("FL-7", _keep_exceptions),
    "handles forget when dropped": ("RL-7", _forget_when_dropped),
}
"""What is broken: which clause must go red, and how to break it."""

if os.environ.get("UPSHOT_MUTANT"):
    MUTANTS[os.environ["UPSHOT_MUTANT"]][1]()
