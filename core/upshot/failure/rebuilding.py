"""Failure → exception, without running any code that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from upshot.errors import RemoteError
from upshot.failure.classes import builtin_base, loaded_class, member_descriptors
from upshot.failure.data import Failure
from upshot.failure.texts import safe_repr

__all__ = ["RemoteTraceback", "rebuild"]


class RemoteTraceback(Exception):  # noqa: N818 - nothing failed here; it shows what failed there
    """Shows, as the cause of a rebuilt exception, the traceback from where it was raised.

    Its only argument is that text.
    """

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""' if self.args else ""


def rebuild(failure: Failure) -> Exception:
    """Return a new exception like the one described, ready to be raised.

    It is of the original class if this process has loaded it and it derives from Exception.
    Arguments, attributes, notes, causes and group members are those of the original, and its
    `__init__`, `__new__`, `__setattr__` and properties do not run: what the builtin base
    class does is done, the rest is set directly. Where only the `repr()` of an argument is known,
    that text takes its place. Otherwise it is a RemoteError, which tells all it can.

    The remote traceback is shown when it is printed: the last exception of its chain of causes,
    itself if it has none, gets a `RemoteTraceback` as its cause.

    Every call makes new objects, down to the lists in its arguments, so callers may raise and
    change them. Nothing is imported, and the data chooses no code to run.
    """
    exc = _rebuild(failure)
    if failure.traceback:
        last: Exception = exc
        while (below := _shown_below(last)) is not None:
            last = below
        _set(last, "__cause__", RemoteTraceback(failure.traceback))
    return exc


def _rebuild(failure: Failure) -> Exception:
    """Rebuild one exception and, by recursion of at most MAX_DEPTH, those it refers to."""
    exc = _original(failure) or _stand_in(failure)
    if failure.notes:
        _get(exc, "__dict__")["__notes__"] = list(failure.notes)
    if failure.cause is not None:
        _set(exc, "__cause__", _rebuild(failure.cause))
    if failure.context is not None:
        _set(exc, "__context__", _rebuild(failure.context))
    _set(exc, "__suppress_context__", failure.suppress_context)
    return exc


def _original(failure: Failure) -> Exception | None:
    """Return an instance of the original class, None if it is not to be had."""
    cls = loaded_class(failure.module, failure.qualname)
    base: Any = None if cls is None else builtin_base(cls)
    if cls is None or base is None:
        return None
    args = tuple(_copy(arg) for arg in failure.args)
    is_group = issubclass(cls, BaseExceptionGroup)
    made_from = (*args, [_rebuild(member) for member in failure.members]) if is_group else args
    try:
        _check_position(base, args)
        exc: Exception = base.__new__(cls, *made_from)
        base.__init__(exc, *made_from)
    except (TypeError, ValueError, OverflowError):  # the builtin does not take such arguments
        return None
    if not is_group:
        _set(exc, "args", args)
    _set_attributes(exc, failure.attributes)
    return exc


def _check_position(base: type[Any], args: tuple[Any, ...]) -> None:
    """Refuse a syntax error's position of wrong types: it would break whoever prints it."""
    if issubclass(base, SyntaxError) and len(args) > 1:
        filename, line, column, text, *ends = args[1]
        numbers_fit = all(
            number is None or (type(number) is int and -1 <= number < 2**31)
            for number in (line, column, *ends)
        )
        if not numbers_fit or not {type(filename), type(text)} <= {str, type(None)}:
            raise TypeError("not the position of a syntax error")


def _stand_in(failure: Failure) -> RemoteError:
    return RemoteError(
        failure.type_name,
        failure.message,
        args_repr=tuple(
            arg if position in failure.opaque else safe_repr(arg)
            for position, arg in enumerate(failure.args)
        ),
        traceback=failure.traceback,
        bases=failure.bases,
    )


def _set_attributes(exc: Exception, attributes: dict[str, Any]) -> None:
    descriptors = member_descriptors(type(exc))
    for name, value in attributes.items():
        if name in descriptors:
            descriptors[name].__set__(exc, _copy(value))
        else:
            _get(exc, "__dict__")[name] = _copy(value)


def _shown_below(exc: Exception) -> Exception | None:
    """Return the exception that a traceback shows before this one."""
    below: Exception | None = _get(exc, "__cause__")
    if below is None and not _get(exc, "__suppress_context__"):
        below = _get(exc, "__context__")
    return below


def _get(exc: Exception, name: str) -> Any:
    """Read what BaseException defines, whatever the class puts before it."""
    return BaseException.__dict__[name].__get__(exc)


def _set(exc: Exception, name: str, value: object) -> None:
    """Set what BaseException defines, past any `__setattr__` or property of the class."""
    BaseException.__dict__[name].__set__(exc, value)


_COPIERS: Final[dict[type[Any], Callable[[Any], Any]]] = {
    bytearray: bytearray,
    dict: lambda value: {key: _copy(part) for key, part in value.items()},
    list: lambda value: list(map(_copy, value)),
    set: set,
    tuple: lambda value: tuple(map(_copy, value)),
}


def _copy(value: object) -> Any:
    """Copy the containers that a serializer makes; anything else is immutable or left as is."""
    copier = _COPIERS.get(type(value))
    return value if copier is None else copier(value)
