"""Neither an exception nor the data of a failure can break describing or run code on rebuilding."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
from typing import Any

import pytest

from upshot.errors import RemoteError
from upshot.failure import Failure, RemoteTraceback, describe, rebuild
from upshot.serializers import JsonSerializer

JSON = JsonSerializer()
CALLS: list[str] = []


def record(name: str) -> Any:
    def method(*_: Any, **__: Any) -> Any:
        CALLS.append(name)
        raise AssertionError(f"{name} ran")

    return method


class Recording(type):
    """A metaclass on which every way to touch the class is recorded."""

    __call__ = record("metaclass __call__")
    __instancecheck__ = record("__instancecheck__")
    __subclasscheck__ = record("__subclasscheck__")
    __getattr__ = record("metaclass __getattr__")

    def __getattribute__(cls, name: str) -> Any:
        CALLS.append(f"metaclass __getattribute__ {name}")
        return super().__getattribute__(name)

    def __hash__(cls) -> int:
        CALLS.append("metaclass __hash__")
        return 1

    def __eq__(cls, other: object) -> bool:
        CALLS.append("metaclass __eq__")
        return cls is other


class TrapError(Exception, metaclass=Recording):
    """An exception that does nothing without being noticed."""

    def __new__(cls, *args: Any) -> TrapError:
        CALLS.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        CALLS.append("__init__")
        super().__init__(*args)

    __setattr__ = record("__setattr__")
    __getattr__ = record("__getattr__")
    __setstate__ = record("__setstate__")
    __reduce__ = record("__reduce__")
    __str__ = record("__str__")
    __repr__ = record("__repr__")
    __eq__ = record("__eq__")
    __hash__ = record("__hash__")
    add_note = record("add_note")
    with_traceback = record("with_traceback")
    code = property(record("getter"), record("setter"))
    __cause__ = property(record("cause getter"), record("cause setter"))  # pyright: ignore[reportAssignmentType]  # the point of it
    __notes__ = property(record("notes getter"), record("notes setter"))  # pyright: ignore[reportAssignmentType]  # the point of it


def entry(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "module": "builtins",
        "qualname": "ValueError",
        "bases": ["builtins.Exception"],
        "message": "text",
        "args": ["text"],
        "opaque": [],
        "attributes": {},
        "dropped": [],
        "notes": [],
        "suppress_context": False,
        "cause": None,
        "context": None,
        "members": [],
    }
    return fields | changes


def failure_of(*entries: dict[str, Any]) -> Failure:
    return Failure.from_data({"traceback": "remote text", "exceptions": list(entries)})


def test_rebuilding_runs_none_of_the_class_s_code() -> None:
    failure = failure_of(
        entry(
            module=__name__,
            qualname="TrapError",
            args=[1],
            attributes={"code": 5, "plain": [1]},
            notes=["n"],
            cause=1,
        ),
        entry(),
    )
    CALLS.clear()

    rebuilt: Any = rebuild(failure)

    assert CALLS == []
    assert type(rebuilt) is TrapError
    assert object.__getattribute__(rebuilt, "__dict__") == {
        "code": 5,
        "plain": [1],
        "__notes__": ["n"],
    }
    assert repr(BaseException.__dict__["__cause__"].__get__(rebuilt)) == "ValueError('text')"


def test_an_exception_that_refuses_everything_is_described_all_the_same() -> None:
    exc = BaseException.__new__(TrapError, object(), 5)

    failure = describe(exc, encodable=JSON.can_encode)

    assert (failure.module, failure.qualname) == (__name__, "TrapError")
    assert "cannot be shown" in failure.message
    assert failure.args[1] == 5
    assert JSON.can_encode(failure.to_data())


class __DunderError__(Exception):  # noqa: N801, N818 - a name that data may not ask for
    pass


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__

    __class__ = property(record("__class__ getter"))  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]


class Shy(str):
    __slots__ = ()


class ShyError(Exception):
    def __str__(self) -> str:
        return Shy("shy")


def test_odd_arguments_notes_and_texts_are_described() -> None:
    odd: Any = ShyError(Unshowable(), "x" * 100_000, {"k": Unshowable()})
    odd.__notes__ = ["fine", Unshowable(), 5]
    odd.__dict__[5] = "a key that is no name"
    odd.weird = Unshowable()

    failure = describe(odd, encodable=JSON.can_encode)

    assert type(failure.message) is str
    assert failure.message == "shy"
    assert failure.opaque == (0, 2)
    assert "cannot be shown" in failure.args[0]
    assert failure.notes[::2] == ("fine", "5")
    assert failure.dropped == ("weird",)
    assert type(rebuild(failure)) is ShyError


@pytest.mark.parametrize("notes", [5, None, "text", {"a": 1}, object()])
def test_notes_that_are_no_list_are_left_out(notes: object) -> None:
    exc = ValueError("x")
    exc.__dict__["__notes__"] = notes

    assert describe(exc, encodable=JSON.can_encode).notes == ()


def test_a_class_without_a_proper_module_is_described() -> None:
    for module in (None, 5, property()):
        cls = type("OddError", (Exception,), {"__module__": module})

        assert describe(cls("x"), encodable=JSON.can_encode).module == "?"


def test_a_circle_of_causes_is_cut() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    group = ExceptionGroup("g", [one])
    two.__context__ = group

    rebuilt = rebuild(describe(one, encodable=JSON.can_encode))

    assert repr(rebuilt) == "ValueError('one')"
    assert rebuilt.__cause__ is not None
    assert repr(rebuilt.__cause__) == "KeyError('two')"
    assert isinstance(rebuilt.__cause__.__cause__, RemoteTraceback)
    assert describe(group, encodable=JSON.can_encode).members[0].qualname == "ValueError"


def test_long_chains_and_wide_groups_are_bounded() -> None:
    exc: Exception = ValueError(0)
    for number in range(1, 3000):
        outer = ValueError(number)
        outer.__cause__, exc = exc, outer
    wide = ExceptionGroup("wide", [ValueError(number) for number in range(3000)])

    for kept in (exc, wide):
        failure = describe(kept, encodable=JSON.can_encode)
        data = failure.to_data()

        assert len(data["exceptions"]) in (64, 1000)
        assert Failure.from_data(JSON.loads(JSON.dumps(data))) == failure
        assert type(rebuild(failure)) is type(kept)


def test_groups_that_share_members_do_not_multiply_without_end() -> None:
    exc: Any = ValueError("root")
    for _ in range(40):
        exc = ExceptionGroup("g", [exc, exc])

    failure = describe(exc, encodable=JSON.can_encode)

    assert "not shown" in failure.traceback
    assert len(failure.to_data()["exceptions"]) <= 1000
    assert isinstance(rebuild(failure), ExceptionGroup)


NOT_CLASSES = [
    ("os", "system"),
    ("builtins", "eval"),
    ("builtins", "dict"),
    ("builtins", "SystemExit"),
    ("builtins", "KeyboardInterrupt"),
    ("builtins", "BaseException"),
    ("builtins", "GeneratorExit"),
    ("asyncio.exceptions", "CancelledError"),
    ("builtins", "Exception.__class__"),
    ("builtins", "ValueError.__base__"),
    ("builtins", "ValueError.__init__"),
    ("builtins", "__build_class__"),
    ("builtins", "EnvironmentError"),
    ("builtins", ""),
    ("builtins", "."),
    ("builtins", "ValueError."),
    ("builtins", "f.<locals>.Error"),
    ("", "ValueError"),
    ("builtins.ValueError", ""),
    ("no.such.module", "Error"),
    ("upshot.failure.rebuilding", "RemoteError"),
    ("upshot.errors", "UpshotError.mro"),
    ("lazy_module", "Error"),
    ("odd_entry", "Error"),
    (__name__, "__DunderError__"),
]


class LazyModule(types.ModuleType):
    def __getattribute__(self, name: str) -> Any:
        CALLS.append(f"module {name}")
        return super().__getattribute__(name)


@pytest.mark.parametrize(("module", "qualname"), NOT_CLASSES)
def test_only_a_loaded_exception_class_of_that_very_name_is_used(
    module: str, qualname: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lazy_module", LazyModule("lazy_module"))
    monkeypatch.setitem(sys.modules, "odd_entry", object())
    CALLS.clear()

    rebuilt = rebuild(failure_of(entry(module=module, qualname=qualname)))

    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name == f"{module}.{qualname}"
    assert CALLS == []


BAD_ARGS: list[tuple[str, list[Any]]] = [
    ("UnicodeDecodeError", ["only one"]),
    ("UnicodeDecodeError", ["utf-8", "text", 0, 1, "bad"]),
    ("UnicodeDecodeError", ["utf-8", b"x", 2**100, 1, "bad"]),
    ("UnicodeEncodeError", ["utf-8", b"bytes", 0, 1, "bad"]),
    ("SyntaxError", ["m", 5]),
    ("SyntaxError", ["m", ["f", 1]]),
    ("SyntaxError", ["m", ["f", "line", 1, "x"]]),
    ("SyntaxError", ["m", [b"f", 1, 1, 5]]),
    ("TabError", ["m", ["f", 1, 2**70, "x"]]),
    ("ExceptionGroup", ["no members"]),
    ("ExceptionGroup", []),
    ("ExceptionGroup", [5, []]),
]


@pytest.mark.parametrize(("qualname", "args"), BAD_ARGS)
def test_arguments_that_the_builtin_refuses_give_a_remote_error(
    qualname: str, args: list[Any]
) -> None:
    rebuilt = rebuild(failure_of(entry(qualname=qualname, args=args)))

    assert type(rebuilt) is RemoteError
    assert rebuilt.args_repr == tuple(map(repr, args))


def test_attributes_cannot_replace_what_exceptions_are_made_of() -> None:
    rebuilt: Any = rebuild(
        failure_of(
            entry(
                qualname="OSError",
                attributes={"errno": [1], "args": 5, "with_traceback": 5, "characters_written": 1},
            )
        )
    )

    assert rebuilt.args == ("text",)
    assert rebuilt.errno == [1]
    assert str(rebuilt) == "text"


def test_rebuilding_imports_nothing() -> None:
    script = textwrap.dedent("""
        import sys
        from upshot.failure import Failure, rebuild
        fields = dict(bases=[], message="id", args=["id"], opaque=[], attributes={}, dropped=[],
                      notes=[], suppress_context=False, cause=None, context=None, members=[])
        names = [("os", "system"), ("colorsys", "Error"), ("this", "s"), ("antigravity", "x"),
                 ("wave", "Error"), ("wave.Error", "x"), ("tests.evil", "E"),
                 ("builtins", "ValueError")]
        before, asked = set(sys.modules), []
        sys.addaudithook(lambda event, args: asked.append((event, args)))
        for module, qualname in names:
            entry = dict(fields, module=module, qualname=qualname)
            rebuild(Failure.from_data({"traceback": "t", "exceptions": [entry]}))
        events = [event for event, _ in asked if event not in ("object.__getattr__",)]
        print(events, set(sys.modules) - before)
    """)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[] set()\n", "")
