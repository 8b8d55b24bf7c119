"""What cannot be encoded is refused, with the path to the part that cannot."""

from __future__ import annotations

import dataclasses
import enum
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

import pytest

from upshot.errors import DecodeError, EncodeError
from upshot.serializers import JsonSerializer, MsgpackSerializer, PickleSerializer, Serializer

typed = pytest.mark.parametrize(
    "serializer", [JsonSerializer(), MsgpackSerializer()], ids=["json", "msgpack"]
)


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Any
    currency: str = "EUR"


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "core"
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "dict": lambda inner: {"k": inner},
    "tuple": lambda inner: (inner,),
    "int key": lambda inner: {1: inner},
    "dataclass": Money,
}


@typed
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_200_levels_travel_and_201_do_not(
    serializer: Serializer, wrap: Callable[[Any], Any]
) -> None:
    value = nested(200, wrap)

    home = serializer.loads(serializer.dumps(value))

    assert home == value or wrap is Money
    with pytest.raises(EncodeError, match="more than 200 levels"):
        serializer.dumps(wrap(value))


@typed
def test_nesting_far_beyond_the_recursion_limit_is_an_encode_error(serializer: Serializer) -> None:
    value = nested(100_000, WRAPS["list"])

    with pytest.raises(EncodeError, match="more than 200 levels") as caught:
        serializer.dumps(value)
    while value != "core":  # take it apart by hand: comparing or freeing it at once recurses
        value = value[0]

    assert len(caught.value.path) < 1100


@typed
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_stack_that_is_nearly_full_is_an_encode_or_decode_error(
    serializer: Serializer, wrap: Callable[[Any], Any]
) -> None:
    value = nested(100, wrap)
    data = serializer.dumps(value)
    depth = sum(1 for _ in traceback.walk_stack(None))
    limit, raised = sys.getrecursionlimit(), set[type[Exception]]()

    try:
        for room in range(40, 340):
            sys.setrecursionlimit(depth + room)
            for attempt in (lambda: serializer.dumps(value), lambda: serializer.loads(data)):
                try:
                    attempt()
                except Exception as exc:
                    raised.add(type(exc))
    finally:
        sys.setrecursionlimit(limit)

    assert EncodeError in raised
    assert raised <= {EncodeError, DecodeError}


@typed
def test_a_cycle_is_an_encode_error_that_says_where_it_closes(serializer: Serializer) -> None:
    inner: list[Any] = [1]
    value = {"a": (0, inner)}
    inner.append({"back": value})

    with pytest.raises(EncodeError, match="contains itself") as caught:
        serializer.dumps(value, root="result")

    assert caught.value.path == "result['a'][1][1]['back']"


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Key:
    n: int


@dataclasses.dataclass
class Words(dict[str, int]):
    language: str = "en"


class Offset(tzinfo):
    def utcoffset(self, _: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _: datetime | None, /) -> None:
        return None

    def tzname(self, _: datetime | None, /) -> None:
        return None


class Lazy:
    """Like a mapper's attribute that needs a session."""

    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        raise RuntimeError("session is closed")


@dataclasses.dataclass(init=False)
class Mapped:
    rows: Any = Lazy()


REFUSED: list[tuple[Any, str]] = [
    (object(), "result"),
    ({"rows": [1, 2, 3, threading.Lock()]}, "result['rows'][3]"),
    ([(), ({"k": range(3)},)], "result[1][0]['k']"),
    ({("a", 1): object()}, "result[('a', 1)]"),
    (Money([0, object()]), "result.amount[1]"),
    ([Color.RED], "result[0]"),
    ([Level.LOW], "result[0]"),
    ({"n": Name("x")}, "result['n']"),
    ({Name("x"): 1}, "result['x']"),
    ([Point(1, 2)], "result[0]"),
    ([OrderedDict[str, int]()], "result[0]"),
    ([memoryview(b"x")], "result[0]"),
    ([int], "result[0]"),
    ([Words()], "result[0]"),
    ([datetime(2024, 1, 1, tzinfo=Offset())], "result[0]"),
    ([Mapped()], "result[0].rows"),
    ({Key(1)}, "result"),
    ({(Key(1),): 1}, "result[(Key(n=1),)]"),
    ([1] * 50 + [object()], "result[50]"),
]


@typed
@pytest.mark.parametrize(("value", "path"), REFUSED)
def test_what_would_lose_its_type_is_refused_by_path(
    serializer: Serializer, value: object, path: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        serializer.dumps(value, root="result")

    assert caught.value.path == path
    assert path in str(caught.value)
    assert not serializer.can_encode(value)


def test_pickle_reports_what_cannot_be_pickled() -> None:
    with pytest.raises(EncodeError, match="result cannot be pickled") as caught:
        PickleSerializer().dumps(threading.Lock(), root="result")

    assert caught.value.path == "result"
