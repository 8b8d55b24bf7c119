"""A failure: what is kept of an exception, and its form as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from upshot.errors import DecodeError
from upshot.failure.classes import is_dunder

__all__ = ["MAX_DEPTH", "MAX_EXCEPTIONS", "Failure"]

MAX_DEPTH: Final = 64
"""How long a chain of causes, contexts and group members may be."""

MAX_EXCEPTIONS: Final = 1000
"""How many exceptions one failure may hold, all chains and groups together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is kept of an exception: data only, no frames and no exception objects.

    Attributes:
        module: the module of its class.
        qualname: the name of its class in that module.
        bases: `module.Class` of each base class, nearest first, without `object`.
        message: its `str()`, shortened in the middle if very long.
        args: its arguments; those of a group are its message alone.
        opaque: positions in `args` where the `repr()` stands for a value that no serializer took.
        attributes: what its `__dict__` and slots held, as far as a serializer took it.
        dropped: names of the attributes that no serializer took.
        notes: the texts that `add_note` gave it.
        cause: its `__cause__`, None if it has none.
        context: its `__context__`, None if it has none or the traceback would not show it.
        suppress_context: its `__suppress_context__`.
        members: the exceptions of a group, otherwise empty.
        traceback: the formatted traceback with all causes, contexts, groups and notes.
            Only the outermost failure has one; the others have "".
    """

    module: str
    qualname: str
    bases: tuple[str, ...] = ()
    message: str = ""
    args: tuple[Any, ...] = ()
    opaque: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cause: Failure | None = None
    context: Failure | None = None
    suppress_context: bool = False
    members: tuple[Failure, ...] = ()
    traceback: str = field(default="", repr=False)

    @property
    def type_name(self) -> str:
        """`module.Class` of the exception."""
        return f"{self.module}.{self.qualname}"

    def to_data(self) -> dict[str, Any]:
        """Return it as dicts, lists, str, bool, int and None, and the values in it.

        All exceptions stand in one list, outermost first, and refer to each other by position.
        So a long chain is not nested deeply.
        """
        entries: list[dict[str, Any]] = []
        _flatten(self, entries)
        return {"traceback": self.traceback, "exceptions": entries}

    @classmethod
    def from_data(cls, data: object) -> Failure:
        """Read what `to_data` made and a serializer brought home.

        Keys that are not known, of a later version perhaps, are ignored.

        Raises:
            DecodeError: `data` has another form, or exceeds `MAX_EXCEPTIONS` or `MAX_DEPTH`.
        """
        traceback = _take(data, "traceback", str)
        entries = _take(data, "exceptions", list)
        if not 1 <= len(entries) <= MAX_EXCEPTIONS:
            raise DecodeError(f"a failure has 1 to {MAX_EXCEPTIONS} exceptions")
        return _Reader(entries).read(traceback)


def _flatten(failure: Failure, entries: list[dict[str, Any]]) -> int:
    """Append a failure and all below it; return its position. Recursion ends at MAX_DEPTH."""
    position = len(entries)
    entry: dict[str, Any] = {
        "module": failure.module,
        "qualname": failure.qualname,
        "bases": list(failure.bases),
        "message": failure.message,
        "args": list(failure.args),
        "opaque": list(failure.opaque),
        "attributes": failure.attributes,
        "dropped": list(failure.dropped),
        "notes": list(failure.notes),
        "suppress_context": failure.suppress_context,
    }
    entries.append(entry)
    entry["cause"] = None if failure.cause is None else _flatten(failure.cause, entries)
    entry["context"] = None if failure.context is None else _flatten(failure.context, entries)
    entry["members"] = [_flatten(member, entries) for member in failure.members]
    return position


class _Reader:
    """Puts the tree together from the list, last entry first, so without recursion.

    Each entry is referred to once, by an earlier one; there is no way to write a cycle.
    """

    def __init__(self, entries: list[object]) -> None:
        self._entries = entries
        self._waiting: dict[int, tuple[Failure, int]] = {}  # position → failure and its depth

    def read(self, traceback: str) -> Failure:
        for position in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[position]
            self._waiting[position] = self._read_one(entry, "" if position else traceback)
        failure, _ = self._waiting.pop(0)
        if self._waiting:
            raise DecodeError("a failure holds exceptions that nothing refers to")
        return failure

    def _read_one(self, entry: object, traceback: str) -> tuple[Failure, int]:
        cause, context = _take_link(entry, "cause"), _take_link(entry, "context")
        members = _take_list(entry, "members", int)
        links = [link for link in (cause, context, *members) if link is not None]
        taken = {link: self._waiting.pop(link, None) for link in links}
        below = [found for found in taken.values() if found is not None]
        if len(below) != len(links):
            raise DecodeError("a failure refers to an exception that is not there, or twice")
        depth = 1 + max((found_depth for _, found_depth in below), default=0)
        if depth > MAX_DEPTH:
            raise DecodeError(f"a failure has a chain of more than {MAX_DEPTH} exceptions")
        found = {link: pair[0] for link, pair in taken.items() if pair is not None}
        failure = Failure(
            module=_take(entry, "module", str),
            qualname=_take(entry, "qualname", str),
            bases=tuple(_take_list(entry, "bases", str)),
            message=_take(entry, "message", str),
            args=tuple(_take(entry, "args", list)),
            opaque=tuple(_take_list(entry, "opaque", int)),
            attributes=_take_attributes(entry),
            dropped=tuple(_take_list(entry, "dropped", str)),
            notes=tuple(_take_list(entry, "notes", str)),
            cause=None if cause is None else found[cause],
            context=None if context is None else found[context],
            suppress_context=_take(entry, "suppress_context", bool),
            members=tuple(found[member] for member in members),
            traceback=traceback,
        )
        return failure, depth


def _is_exactly(value: object, kind: type[Any]) -> bool:
    return type(value) is kind  # True is no int


def _take(data: Any, key: str, kind: type[Any]) -> Any:
    """Return `data[key]`, which must be of exactly that type."""
    if not _is_exactly(data, dict) or key not in data:
        raise DecodeError(f"a failure is a dict with {key!r}")
    value = data[key]
    if not _is_exactly(value, kind):
        raise DecodeError(f"{key!r} of a failure is of type {kind.__name__}")
    return value


def _take_list(data: object, key: str, kind: type[Any]) -> list[Any]:
    values: list[Any] = _take(data, key, list)
    if not all(_is_exactly(value, kind) for value in values):
        raise DecodeError(f"{key!r} of a failure holds {kind.__name__} only")
    return values


def _take_link(data: Any, key: str) -> int | None:
    if _is_exactly(data, dict) and key in data and data[key] is None:
        return None
    link: int = _take(data, key, int)
    return link


def _take_attributes(data: object) -> dict[str, Any]:
    attributes: dict[str, Any] = _take(data, "attributes", dict)
    if not all(_is_exactly(name, str) and not is_dunder(name) for name in attributes):
        raise DecodeError("'attributes' of a failure has a name that is not allowed")
    return attributes
