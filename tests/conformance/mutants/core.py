"""Broken cores, for clauses that no backend can break alone: a pytest plugin for a subprocess.

Loaded with `-p mutants.core`, it breaks what the environment variable UPSHOT_CORE_MUTANT names.
"""

from __future__ import annotations

import importlib
import os
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from upshot import keys, outcome, result
from upshot.client import ResultClient
from upshot.failure import Failure, describing, rebuilding
from upshot.result import AsyncResult
from upshot.serializers import JsonSerializer

from . import (
    core_expiry,
    core_faults,
    core_keys,
    core_sealing,
    core_security,
    core_streams,
    core_waiting,
)
from .breaking import put as _break

_KEPT: Final[list[object]] = []


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


def _keep_values() -> None:
    original: Any = vars(AsyncResult)["get"]
    kept: dict[int, Any] = {}

    def get(self: AsyncResult[Any], timeout: float | None = None, propagate: bool = True) -> Any:
        if id(self) not in kept:
            kept[id(self)] = self, original(self, timeout, propagate)
        return kept[id(self)][1]

    _break(AsyncResult, "get", get)


def _share_values() -> None:
    original = outcome.decode_value
    kept: dict[bytes, Any] = {}

    def decode_value(codecs: Any, payload: Any, annotation: object = None) -> Any:
        if payload.body not in kept:
            kept[payload.body] = original(codecs, payload, annotation)
        return kept[payload.body]

    _break(result, "decode_value", decode_value)


def _forget_what_is_there() -> None:
    original: Any = vars(AsyncResult)["forget"]

    def forget(self: AsyncResult[Any]) -> None:
        if self.state == "PENDING":
            raise KeyError(self.id)
        original(self)

    _break(AsyncResult, "forget", forget)


def _sort_keys(value: Any) -> Any:
    return dict(sorted(value.items())) if hasattr(value, "items") else value


def _close_once() -> None:
    original = ResultClient.close

    def close(self: ResultClient) -> None:
        if vars(self)["_closed"]:
            raise RuntimeError("it is closed already")
        original(self)

    _break(ResultClient, "close", close)


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
    **core_expiry.MUTANTS,
    **core_streams.MUTANTS,
    "handles keep their value": ("RS-7", _keep_values),
    "readers share a value": ("RS-7", _share_values),
    "forgetting asks for the record": ("RL-3", _forget_what_is_there),
    "closing twice fails": ("RL-5", _close_once),
    "keys of dicts are sorted": (
        "RS-1",
        lambda: _edit_values(_sort_keys),
    ),
    "floats have 15 digits": (
        "RS-4",
        lambda: _edit_values(lambda v: float(f"{v:.15g}") if type(v) is float else v),
    ),
    "negative zero loses its sign": (
        "RS-4",
        lambda: _edit_values(lambda v: v + 0.0 if type(v) is float else v),
    ),
    "texts lose their byte order mark": (
        "RS-3",
        lambda: _edit_values(lambda v: v.removeprefix("\ufeff") if type(v) is str else v),
    ),
    "texts end at the first NUL": (
        "RS-3",
        lambda: _edit_values(lambda v: v.partition("\0")[0] if type(v) is str else v),
    ),
    **core_security.MUTANTS,
    **core_sealing.MUTANTS,
    **core_faults.MUTANTS,
    **core_keys.MUTANTS,
    **core_waiting.MUTANTS,
}
"""What is broken: which clause must go red, and how to break it."""

if os.environ.get("UPSHOT_CORE_MUTANT"):
    MUTANTS[os.environ["UPSHOT_CORE_MUTANT"]][1]()
