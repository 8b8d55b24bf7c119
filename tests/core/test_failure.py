"""An exception is described whatever it does, and comes home as itself."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from upshot.errors import RemoteError, ServiceUnavailableError
from upshot.failure import Failure, RemoteTraceback, describe, rebuild
from upshot.serializers import JsonSerializer, MsgpackSerializer

JSON = JsonSerializer()


class PaymentError(Exception):
    """Like most of the world's: mandatory arguments, some of them only kept as attributes."""

    def __init__(self, code: int, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retry = retry

    class DeclinedError(Exception):
        pass


class SlottedError(Exception):
    __slots__ = ("__hidden", "code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
        self.__hidden = "x"

    def hidden(self) -> str:
        return self.__hidden


class StorageError(OSError):
    """OSError leaves the work to `__init__` when a subclass overrides it."""

    def __init__(self, bucket: str) -> None:
        super().__init__(5, "no storage", bucket)
        self.bucket = bucket


class MixedError(KeyError, OSError):
    """The layout is that of OSError, though KeyError comes first."""


class PartialGroup(ExceptionGroup[Exception]):
    done = 0


def thrown(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return the exception after it was raised, so that it has a traceback."""
    with contextlib.suppress(BaseException):
        if cause is not None:
            raise exc from cause
        raise exc
    return exc


def travel(exc: BaseException) -> Failure:
    """Describe an exception, send it as bytes, and read it."""
    failure = describe(exc, encodable=JSON.can_encode)
    return Failure.from_data(JSON.loads(JSON.dumps(failure.to_data())))


def home(exc: BaseException) -> Any:
    return rebuild(travel(exc))


def noted(exc: Exception, *notes: str) -> Exception:
    for note in notes:
        exc.add_note(note)
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        ValueError(),
        ValueError("text", 5, None, (1, b"\0"), {"a": {1}}),
        KeyError("key"),
        PaymentError(402, "no funds", retry=True),
        PaymentError.DeclinedError("nested class"),
        OSError(2, "gone", "file.txt"),
        OSError(18, "cross-device", "a", None, "b"),
        OSError("only text"),
        ConnectionResetError(104, "reset"),
        StorageError("bucket"),
        MixedError("k"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        StopIteration(5),
        StopAsyncIteration(),
        SyntaxError("bad", ("f.py", 3, 1, "x = \n", 3, 2)),
        IndentationError("deep", ("f.py", 3, None, None)),
        ImportError("no", name="module", path="/x"),
        ModuleNotFoundError("no module", name="module"),
        AttributeError("no attribute", name="a", obj=object()),
        NameError("no name", name="n"),
        AssertionError(),
        TimeoutError("slow"),
        ZeroDivisionError("division by zero"),
        RemoteTraceback("text"),
        ServiceUnavailableError("down"),
        noted(ValueError("x"), "first", "second \u2603"),
    ],
    ids=repr,
)
def test_an_exception_comes_home_as_itself(exc: Exception) -> None:
    rebuilt = home(thrown(exc))

    assert type(rebuilt) is type(exc)
    assert rebuilt.args == exc.args
    assert rebuilt.__dict__ == exc.__dict__
    assert str(rebuilt) == str(exc)
    assert repr(rebuilt) == repr(exc)
    for name in ("errno", "filename", "filename2", "value", "path", "start", "lineno", "reason"):
        assert getattr(rebuilt, name, None) == getattr(exc, name, None)


def test_every_builtin_exception_class_comes_home() -> None:
    found: list[Any] = [kind for kind in vars(builtins).values() if isinstance(kind, type)]
    classes = [kind for kind in found if issubclass(kind, Exception)]
    with_their_own_arguments = (UnicodeError, ExceptionGroup)
    for kind in classes:
        if kind is UnicodeError or not issubclass(kind, with_their_own_arguments):
            rebuilt = home(kind("text"))

            assert type(rebuilt) is kind
            assert rebuilt.args == ("text",)


def test_slots_come_home() -> None:
    rebuilt = home(SlottedError(7))

    assert (type(rebuilt), rebuilt.code, rebuilt.hidden()) == (SlottedError, 7, "x")
    assert not hasattr(rebuilt, "unset")


@pytest.mark.parametrize(
    "make", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
def test_what_would_end_the_reader_comes_home_as_a_remote_error(
    make: Callable[[str], BaseException],
) -> None:
    rebuilt = home(thrown(make("now")))

    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name == f"{type(make('')).__module__}.{type(make('')).__qualname__}"
    assert rebuilt.is_("builtins.BaseException")
    assert (rebuilt.message, rebuilt.args_repr) == ("now", ("'now'",))
    assert "now" in rebuilt.traceback


def test_a_class_that_is_not_loaded_comes_home_as_a_remote_error_that_tells_all() -> None:
    class LocalError(PaymentError):
        pass

    cause = noted(ValueError("why"), "note")
    rebuilt = home(thrown(noted(LocalError(5, "text"), "more"), cause))

    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name.endswith("<locals>.LocalError")
    assert rebuilt.is_(f"{__name__}.PaymentError")
    assert rebuilt.is_("builtins.Exception")
    assert not rebuilt.is_("builtins.ValueError")
    assert (rebuilt.message, rebuilt.args_repr) == ("text", ("'text'",))
    assert rebuilt.__notes__ == ["more"]
    assert repr(rebuilt.__cause__) == "ValueError('why')"
    assert "LocalError: text" in rebuilt.traceback


def test_a_cause_comes_home_and_its_context_does_not() -> None:
    rebuilt = home(thrown(ValueError("a"), thrown(KeyError("b"), OSError("c"))))

    cause = rebuilt.__cause__
    assert [repr(cause), repr(cause.__cause__)] == ["KeyError('b')", "OSError('c')"]
    assert isinstance(cause.__cause__.__cause__, RemoteTraceback)
    assert rebuilt.__context__ is None


def failed_while_handling(*, suppress: bool) -> BaseException:
    exc = ValueError("outer")
    exc.__context__ = thrown(KeyError("inner"))
    exc.__suppress_context__ = suppress
    return exc


def test_a_context_comes_home_unless_it_is_suppressed() -> None:
    shown = home(failed_while_handling(suppress=False))
    hidden = home(failed_while_handling(suppress=True))

    assert (shown.__cause__, repr(shown.__context__)) == (None, "KeyError('inner')")
    assert not shown.__suppress_context__
    assert hidden.__context__ is None
    assert hidden.__suppress_context__


def test_groups_come_home_with_their_members_causes_and_notes() -> None:
    member = thrown(PaymentError(1, "one"), OSError(2, "gone"))
    inner = PartialGroup("inner", [KeyError("k"), noted(ValueError("v"), "on a member")])
    inner.done = 3
    assert isinstance(member, Exception)

    rebuilt = home(thrown(ExceptionGroup("outer", [member, inner])))

    members: tuple[Any, ...] = rebuilt.exceptions
    first, second = members
    assert repr(rebuilt).startswith("ExceptionGroup('outer', [PaymentError('one'), PartialGroup(")
    assert (type(first), first.code, repr(first.__cause__)) == (
        PaymentError,
        1,
        "FileNotFoundError(2, 'gone')",
    )
    assert (type(second), second.done) == (PartialGroup, 3)
    assert [str(exc) for exc in second.exceptions] == ["'k'", "v"]
    assert second.exceptions[1].__notes__ == ["on a member"]


def test_a_group_that_holds_a_system_exit_comes_home_as_a_remote_error() -> None:
    rebuilt = home(thrown(BaseExceptionGroup("mixed", [SystemExit(3), ValueError("v")])))

    assert type(rebuilt) is RemoteError
    assert "SystemExit: 3" in rebuilt.traceback


def test_the_remote_traceback_is_printed_with_the_rebuilt_exception() -> None:
    for exc in (ValueError("plain"), thrown(ValueError("a"), KeyError("deeper"))):
        shown = "".join(traceback.format_exception(home(thrown(exc))))

        assert "in thrown" in shown
        assert shown.rstrip().endswith(f"ValueError: {exc}")


def test_a_second_journey_does_not_pile_up_remote_tracebacks() -> None:
    once = home(thrown(ValueError("far")))
    twice = home(thrown(RuntimeError("near"), thrown(once)))

    assert type(twice.__cause__) is ValueError
    assert type(twice.__cause__.__cause__) is RemoteTraceback
    assert twice.__cause__.__cause__.__cause__ is None
    assert str(twice.__cause__.__cause__).count("RemoteTraceback") == 1


def test_every_rebuilt_exception_is_new_down_to_the_lists_in_it() -> None:
    exc = PaymentError(1, "x")
    exc.args = ([1], {"a": {2}}, bytearray(b"b"))
    exc.__dict__["rows"] = [[1]]
    failure = travel(thrown(exc))
    one: Any = rebuild(failure)
    one.args[0].append(2)
    one.args[1]["a"].add(3)
    one.args[2].extend(b"c")
    one.rows[0].append(2)
    one.add_note("mine")
    thrown(one)

    two: Any = rebuild(failure)

    assert two is not one
    assert two.args == ([1], {"a": {2}}, bytearray(b"b"))
    assert (two.rows, two.__traceback__, hasattr(two, "__notes__")) == ([[1]], None, False)


def test_arguments_and_attributes_that_cannot_travel_leave_their_repr_or_name() -> None:
    exc = PaymentError(1, "x")
    exc.args = (threading.Lock(), [1])
    exc.__dict__.update(lock=threading.Lock(), rows=[1], __odd__=1)
    failure = travel(exc)

    rebuilt: Any = rebuild(failure)

    assert failure.opaque == (0,)
    assert failure.args[0].startswith("<unlocked _thread.lock object")
    assert set(failure.dropped) == {"lock", "__odd__"}
    assert rebuilt.args == failure.args
    assert (rebuilt.rows, rebuilt.code) == ([1], 1)
    assert not hasattr(rebuilt, "lock")


def test_an_argument_that_only_fits_alone_is_not_taken() -> None:
    deep: Any = None
    for _ in range(200):
        deep = [deep]

    assert JSON.can_encode(deep)
    assert travel(ValueError(deep, 1)).opaque == (0,)


def test_a_failure_survives_msgpack_too() -> None:
    failure = describe(thrown(ValueError(b"\xff", {1: 2}), KeyError()), encodable=JSON.can_encode)
    serializer = MsgpackSerializer()

    assert Failure.from_data(serializer.loads(serializer.dumps(failure.to_data()))) == failure
