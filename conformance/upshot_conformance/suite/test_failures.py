"""Failures: what is kept of an exception, and what a reader gets."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
import types
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from upshot.client import ResultClient
from upshot.errors import RemoteError
from upshot.record import Record
from upshot.states import State
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start, together
from upshot_conformance.fixtures import MakeHandle
from upshot_conformance.records import failure, new_id
from upshot_conformance.selection import Target
from upshot_conformance.suite import elsewhere

KEPT_WHOLE = 256 * 1024
"""Bytes of traceback text that are always kept (FL-2)."""


class Nested:
    """Holds a class whose qualified name has a dot."""

    class PaymentError(ValueError):
        """Has arguments and attributes of its own."""

        def __init__(self, code: int, text: str) -> None:
            super().__init__(code, text)
            self.code = code


class TwoWordsError(Exception):
    """Cannot be made from its `args`."""

    def __init__(self, first: str, *, second: int) -> None:
        super().__init__(f"{first}!")
        self.second = second


class HostileError(Exception):
    """Raises whatever one asks it."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")

    def __str__(self) -> str:
        raise RuntimeError("not to be printed")

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


def raised(make: Callable[[], BaseException]) -> BaseException:
    """Return an exception that was raised, with its traceback."""
    try:
        raise make()
    except BaseException as exc:  # SystemExit and its like are among them
        return exc


def store(client: ResultClient, exc: BaseException) -> str:
    """Store a failure; return its id."""
    task_id = new_id()
    assert client.store(failure(task_id, exc))
    return task_id


@clause("FL-1")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("plain"),
        lambda: KeyError("key"),
        lambda: OSError(2, "no such thing", "a/path"),
        lambda: ZeroDivisionError(),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        lambda: Nested.PaymentError(402, "pay é first"),
        lambda: TwoWordsError("one", second=2),
    ],
    ids=["value", "key", "os", "empty", "unicode", "nested", "mandatory-keyword"],
)
def test_a_failure_comes_back_with_class_arguments_and_message(
    client: ResultClient, handle: MakeHandle, make: Callable[[], Exception]
) -> None:
    original = make()

    found = handle(store(client, raised(make))).get(timeout=0, propagate=False)

    assert type(found) is type(original)
    assert found.args == original.args
    assert str(found) == str(original)
    kept = {name: value for name, value in vars(found).items() if not name.startswith("_")}
    assert kept == vars(original)


@clause("FL-2")
def test_every_frame_of_a_deep_recursion_is_in_the_traceback(
    client: ResultClient, handle: MakeHandle, within: float
) -> None:
    def ping(depth: int) -> None:
        pong(depth - 1)

    def pong(depth: int) -> None:
        if depth <= 0:
            raise ValueError("at the bottom: ü")
        ping(depth - 1)

    def fall() -> str:
        try:
            ping(899)  # in a thread, which has its whole recursion limit left
        except ValueError as exc:
            return store(client, exc)
        return ""

    text = handle(start(fall).result(within)).traceback

    assert text is not None
    assert (text.count("in ping"), text.count("in pong")) == (450, 450)
    assert 'raise ValueError("at the bottom: ü")' in text
    assert text.rstrip().endswith("ValueError: at the bottom: ü")


@clause("FL-2")
def test_five_thousand_lines_are_kept_whole(client: ResultClient, handle: MakeHandle) -> None:
    lines = [f"line {number} of a message, é" for number in range(5_000)]
    message = "\n".join(lines)
    assert len(message.encode()) < KEPT_WHOLE

    text = handle(store(client, raised(lambda: ValueError(message)))).traceback

    assert text is not None
    assert text.splitlines()[-5_000:] == [f"ValueError: {lines[0]}", *lines[1:]]


@clause("FL-2")
def test_of_a_longer_text_head_and_tail_are_kept_with_a_mark_between(
    client: ResultClient, handle: MakeHandle
) -> None:
    message = "\n".join(f"number {number}" for number in range(200_000))

    text = handle(store(client, raised(lambda: ValueError(message)))).traceback

    assert text is not None
    whole = f"ValueError: {message}\n"
    if not text.endswith(whole):
        assert text.startswith("Traceback (most recent call last)")
        assert "in raised" in text
        assert text.rstrip().endswith("number 199999")
        assert len(text.encode()) >= KEPT_WHOLE
        assert "left out" in text or "..." in text


def chained() -> None:
    try:
        try:
            raise KeyError("the context")
        except KeyError:
            raise LookupError("the cause")  # noqa: B904 - its context is what is tested
    except LookupError as exc:
        error = ValueError("the error")
        error.add_note("the first note")
        error.add_note("the second note, é")
        raise error from exc


@clause("FL-3")
def test_cause_context_and_notes_are_kept(client: ResultClient, handle: MakeHandle) -> None:
    with pytest.raises(ValueError, match="the error") as caught:
        chained()
    asked = handle(store(client, caught.value))

    found, text = asked.get(timeout=0, propagate=False), asked.traceback

    assert text is not None
    for part in ("the context", "the cause", "the error", "the first note", "the second note, é"):
        assert part in text
    assert "direct cause" in text
    assert "another exception occurred" in text
    assert repr(found.__cause__) == repr(LookupError("the cause"))
    assert repr(found.__cause__.__context__) == repr(KeyError("the context"))
    assert found.__notes__ == ["the first note", "the second note, é"]


@clause("FL-3")
def test_a_suppressed_context_stays_suppressed(client: ResultClient, handle: MakeHandle) -> None:
    def suppress() -> None:
        try:
            raise KeyError("secret detour")
        except KeyError:
            raise ValueError("the error") from None

    with pytest.raises(ValueError, match="the error") as caught:
        suppress()
    asked = handle(store(client, caught.value))

    assert "secret detour" not in (asked.traceback or "")
    assert asked.get(timeout=0, propagate=False).__suppress_context__


@clause("FL-3")
def test_a_group_comes_back_with_its_members(client: ResultClient, handle: MakeHandle) -> None:
    members = [ValueError("one"), ExceptionGroup("inner", [KeyError("two")]), OSError("three")]
    asked = handle(store(client, raised(lambda: ExceptionGroup("outer", members))))

    found, text = asked.get(timeout=0, propagate=False), asked.traceback

    assert text is not None
    assert all(part in text for part in ("outer", "one", "inner", "two", "three"))
    assert type(found) is ExceptionGroup
    assert repr(cast("object", found)) == repr(ExceptionGroup("outer", members))


@clause("FL-4")
@pytest.mark.needs("shared")
def test_a_class_of_another_process_becomes_a_remote_error(
    target: Target, namespace: str, handle: MakeHandle
) -> None:
    task_id = new_id()
    elsewhere.run(target, namespace, "fail_strangely", task_id=task_id)
    modules = set(sys.modules)

    error = handle(task_id).get(timeout=0, propagate=False)

    assert isinstance(error, RemoteError)
    assert error.is_("nowhere_else.Stranger")
    assert error.is_("builtins.ValueError")
    assert "('who', 7)" in str(error)
    assert error.args_repr == ("'who'", "7")
    assert "nowhere_else.Stranger" in error.traceback
    assert set(sys.modules) == modules


@clause("FL-4")
def test_reading_a_failure_imports_nothing(
    client: ResultClient, handle: MakeHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"trap_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text("class SprungError(Exception):\n    pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    absent = types.new_class("SprungError", (Exception,), exec_body=lambda ns: ns.update(
        __module__=name, __qualname__="SprungError"))  # fmt: skip
    modules = set(sys.modules)

    error = handle(store(client, raised(lambda: absent("gone")))).get(timeout=0, propagate=False)

    assert name not in sys.modules
    assert set(sys.modules) == modules
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.message) == (f"{name}.SprungError", "gone")


@clause("FL-5")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError(threading.Lock()),
        lambda: ValueError(object(), {"socket": open}),
        lambda: TwoWordsError("a", second=1),
        HostileError,
        lambda: HostileError(HostileError()),
        lambda: SystemExit(3),
        KeyboardInterrupt,
        lambda: asyncio.CancelledError("stop"),
        lambda: BaseExceptionGroup("mixed", [SystemExit(1), ValueError("a")]),
        lambda: ValueError("\ud800 lone"),
        lambda: ValueError("x" * 5_000_000),
        lambda: Exception(nested_tuple(5_000)),
    ],
    ids=["lock", "object", "mandatory", "hostile", "hostile-arg", "SystemExit",
         "KeyboardInterrupt", "CancelledError", "BaseExceptionGroup", "surrogate", "huge",
         "deep"],
)  # fmt: skip
def test_any_exception_is_recorded_and_wakes_its_waiter(
    client: ResultClient,
    second_client: ResultClient,
    handle: MakeHandle,
    within: float,
    make: Callable[[], BaseException],
) -> None:
    task_id = new_id()
    waiter = start(lambda: second_client.wait(task_id, timeout=within))

    assert client.store(failure(task_id, raised(make)))

    assert waiter.result(2 * within).state == State.FAILURE
    error = handle(task_id).get(timeout=0, propagate=False)
    assert isinstance(error, Exception), "what ends a process must not be raised at a reader"
    assert handle(task_id).traceback
    with pytest.raises(type(error)):
        handle(task_id).get(timeout=0)


def nested_tuple(depth: int) -> tuple[Any, ...]:
    value: tuple[Any, ...] = ()
    for _ in range(depth):
        value = (value,)
    return value


@clause("FL-6")
def test_every_get_raises_an_equal_and_fresh_exception(
    client: ResultClient, handle: MakeHandle, within: float
) -> None:
    asked = handle(store(client, raised(lambda: Nested.PaymentError(1, "a"))))

    def caught() -> Exception:
        with pytest.raises(Nested.PaymentError) as info:
            asked.get(timeout=within)
        return info.value

    errors = [caught(), caught(), caught(), *together([caught, caught], within=2 * within)]

    assert len({id(error) for error in errors}) == len(errors)
    assert {error.args for error in errors} == {(1, "a")}
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors}) == 1
    assert asked.exception(timeout=0) is not errors[0]
    returned = asked.get(timeout=0, propagate=False)
    assert (type(returned), returned.args) == (Nested.PaymentError, (1, "a"))


@clause("FL-7")
def test_recording_a_failure_keeps_no_local_variable_alive(client: ResultClient) -> None:
    class Local:
        pass

    refs: list[weakref.ref[Local]] = []

    def fail() -> None:
        local = Local()
        refs.append(weakref.ref(local))
        raise ValueError("with a local")

    def record() -> Record:
        try:
            fail()
        except ValueError as exc:
            return failure(new_id(), exc)
        raise AssertionError

    kept = record()
    client.store(kept)
    gc.collect()

    assert refs[0]() is None
