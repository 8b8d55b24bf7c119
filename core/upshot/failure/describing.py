"""Exception → failure, whatever the exception does."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final

from upshot.failure.classes import full_name, is_dunder, member_descriptors, mro, name_parts
from upshot.failure.data import MAX_DEPTH, MAX_EXCEPTIONS, Failure
from upshot.failure.rebuilding import RemoteTraceback
from upshot.failure.texts import safe_repr, safe_str, shorten

__all__ = ["MAX_TRACEBACK", "describe"]

MAX_TRACEBACK: Final = 512 * 1024
"""Characters of traceback text kept; contract clause FL-2 asks for 256 KiB."""

_MAX_MESSAGE: Final = 64 * 1024
_MAX_NOTES: Final = 100
_ROOM: Final = 8  # levels that a failure and its record may put around an argument
_MAX_SHOWN: Final = 20_000  # exceptions in one text; formatting so many takes a second or two


def describe(exc: BaseException, *, encodable: Callable[[object], bool]) -> Failure:
    """Return what is kept of an exception.

    Never raises because of what the exception is or does: its `__str__` and `__repr__` may fail,
    its arguments may be locks, its causes may form a circle. The result refers to no frame, so
    it keeps no local variable alive; it does refer to the arguments and attributes it keeps.

    Args:
        exc: any exception, SystemExit and KeyboardInterrupt included. It is only read.
        encodable: tells whether a value can be carried, such as `Codecs.can_encode`. An
            argument that cannot is kept as its `repr()`; an attribute that cannot is dropped,
            and its name kept. Refuse here what is too large to travel, too.
    """
    failure = _Describer(encodable).describe(exc, _format(exc))
    assert failure is not None  # the first exception is within every limit
    return failure


class _Describer:
    """One call of `describe`: counts exceptions, and knows which are being described."""

    def __init__(self, encodable: Callable[[object], bool]) -> None:
        self._encodable = encodable
        self._left = MAX_EXCEPTIONS
        self._path: list[BaseException] = []

    def describe(self, exc: BaseException | None, text: str = "") -> Failure | None:
        """Describe an exception and those it refers to; None where the chain is cut.

        It is cut at an exception that is its own cause, at the limits, and at the text that
        `rebuild` hung on an exception that came from another process: it is in `text` already.
        """
        if exc is None or (self._path and type(exc) is RemoteTraceback):
            return None
        if self._left == 0 or len(self._path) == MAX_DEPTH or any(exc is e for e in self._path):
            return None
        self._left -= 1
        self._path.append(exc)
        try:
            return self._describe(exc, text)
        finally:
            self._path.pop()

    def _describe(self, exc: BaseException, text: str) -> Failure:
        cls: type[BaseException] = type(exc)
        module, qualname = name_parts(cls)
        args, opaque = self._args(exc)
        attributes, dropped = self._attributes(exc)
        cause: BaseException | None = _get(exc, "__cause__")
        suppress: bool = _get(exc, "__suppress_context__")
        hides_context = suppress or cause is not None
        found = (self.describe(member) for member in _members(exc))
        return Failure(
            module=module,
            qualname=qualname,
            bases=tuple(full_name(base) for base in mro(cls)[1:-1]),
            message=shorten(safe_str(exc), _MAX_MESSAGE),
            args=args,
            opaque=opaque,
            attributes=attributes,
            dropped=dropped,
            notes=tuple(_notes(exc)),
            cause=self.describe(cause),
            context=None if hides_context else self.describe(_get(exc, "__context__")),
            suppress_context=suppress,
            members=tuple(member for member in found if member is not None),
            traceback=text,
        )

    def _args(self, exc: BaseException) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Return the arguments, and the positions of those that became their repr."""
        args: list[Any] = list(_get(exc, "args"))
        if issubclass(type(exc), BaseExceptionGroup):
            args = [BaseExceptionGroup.__dict__["message"].__get__(exc)]
        opaque: list[int] = []
        for position, arg in enumerate(args):
            if not self._travels(arg):
                args[position] = safe_repr(arg)
                opaque.append(position)
        return tuple(args), tuple(opaque)

    def _attributes(self, exc: BaseException) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the attributes that can be carried, and the names of the others."""
        kept: dict[str, Any] = {}
        dropped: list[str] = []
        for name, value in _attributes(exc):
            if is_dunder(name) or not self._travels(value):
                dropped.append(shorten(name, 100))
            else:
                kept[name] = value
        return kept, tuple(dropped)

    def _travels(self, value: object) -> bool:
        for _ in range(_ROOM):
            value = [value]
        return self._encodable(value)


def _get(exc: BaseException, name: str) -> Any:
    """Return an attribute that BaseException defines, whatever the class puts before it."""
    return BaseException.__dict__[name].__get__(exc)


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    if not issubclass(type(exc), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(exc)
    return members


def _attributes(exc: BaseException) -> Iterator[tuple[str, object]]:
    """Yield what the instance's `__dict__`, slots and C members hold, notes excepted."""
    for name, value in list(_get(exc, "__dict__").items()):
        if type(name) is str and name != "__notes__":
            yield name, value
    for name, descriptor in member_descriptors(type(exc)).items():
        try:
            value = descriptor.__get__(exc)
        except AttributeError:  # a slot that was never set
            continue
        if value is not None:
            yield name, value


def _notes(exc: BaseException) -> Iterator[str]:
    notes: Any = _get(exc, "__dict__").get("__notes__")
    if type(notes) in (list, tuple):
        for note in notes[:_MAX_NOTES]:
            yield shorten(safe_str(note), _MAX_MESSAGE)


def _format(exc: BaseException) -> str:
    """Return the traceback as text, with causes, contexts, groups and notes if that can be had."""
    try:
        lines = _format_whole(exc) if _count(exc) <= _MAX_SHOWN else _format_alone(exc)
        text = "".join(lines)
    except Exception as problem:  # `traceback` calls `__str__`, loaders and more: anybody's code
        text = (
            f"(no traceback: formatting it raised {full_name(type(problem))})\n"
            f"{full_name(type(exc))}: {safe_str(exc)}\n"
        )
    return shorten(text, MAX_TRACEBACK)


def _format_whole(exc: BaseException) -> Iterator[str]:
    frames: TracebackType | None = _get(exc, "__traceback__")
    return traceback.TracebackException(
        type(exc),
        exc,
        frames,
        compact=True,
        max_group_width=_MAX_SHOWN,  # it would show 15 members, 10 levels deep
        max_group_depth=_MAX_SHOWN,
    ).format()


def _format_alone(exc: BaseException) -> Iterator[str]:
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(_get(exc, "__traceback__"))
    yield f"{full_name(type(exc))}: {safe_str(exc)}\n"
    yield f"(not shown: its causes and members, which are more than {_MAX_SHOWN})\n"


def _count(exc: BaseException) -> int:
    """Count what `traceback` would format, up to a little over the limit.

    Groups that share members, level upon level, are a few objects and an endless text.
    """
    level, total, linked = [exc], 1, set[int]()
    while level and total <= _MAX_SHOWN:
        below = chain.from_iterable(_shown_below(one, linked) for one in level)
        level = list(islice(below, _MAX_SHOWN))
        total += len(level)
    return total


def _shown_below(exc: BaseException, linked: set[int]) -> Iterator[BaseException]:
    """Yield members, and cause and context unless they were shown: once is all they are."""
    yield from _members(exc)
    for link in (_get(exc, "__cause__"), _get(exc, "__context__")):
        if link is not None and id(link) not in linked:
            linked.add(id(link))
            yield link
