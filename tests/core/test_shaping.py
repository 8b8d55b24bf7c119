"""Decoded data becomes the dataclasses that the annotation names, and no others."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NewType, Optional, TypeVar, Union

import pytest
from typing_extensions import TypeAliasType

from upshot.errors import DecodeError
from upshot.serializers import JsonSerializer, PickleSerializer, shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@dataclass
class Line:
    start: Point
    end: Point | None = None
    via: list[Point] = field(default_factory=list[Point])
    named: dict[str, tuple[Point, ...]] = field(default_factory=dict[str, tuple[Point, ...]])
    next: Line | None = None


@dataclass
class Circle:
    center: Point
    radius: float


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Touchy:
    size: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = self.size * 2
        self.size += 1


@dataclass
class Unresolvable:
    point: NoSuchName  # type: ignore[name-defined]  # pyright: ignore[reportUndefinedVariable]  # noqa: F821 - the point of it


@dataclass
class Abstract(abc.ABC):
    x: int

    @abc.abstractmethod
    def area(self) -> float: ...


PointAlias = TypeAliasType("PointAlias", Point)  # `type PointAlias = Point` from 3.12 on
Alias = NewType("Alias", Point)


def home(value: object) -> Any:
    serializer = JsonSerializer()
    return serializer.loads(serializer.dumps(value))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Point(1, 2), Point),
        (Point(1), Alias),
        (Point(1), PointAlias),
        (Point(1), Annotated[Point, ["unhashable"]]),
        (Point(1), Optional[Point]),  # noqa: UP045 - users write both
        (None, Optional[Point]),  # noqa: UP045
        (None, Point | None),
        (5, Point | int),
        ("text", Union[int, Point, str]),  # noqa: UP007
        (Point(3), Union[int, Point]),  # noqa: UP007
        ([Point(1), Point(2)], list[Point]),
        ([Point(1), None], Sequence[Point | None]),
        ((Point(1), Point(2)), tuple[Point, ...]),
        ((Point(1), "a"), tuple[Point, str]),
        ({"a": Point(1)}, dict[str, Point]),
        ({1: [Point(1)]}, Mapping[int, list[Point]]),
        (Line(Point(1), Point(2), [Point(3)], {"n": (Point(4),)}, Line(Point(5))), Line),
        (Circle(Point(1), 2.0), Line | Circle),
        (Box(5), Box[int]),
        ({1, 2}, set[int]),
        ({1, 2}, set[Point]),
    ],
)
def test_a_value_gets_the_dataclasses_its_annotation_names(value: object, annotation: Any) -> None:
    shaped = shape(home(value), annotation)

    assert shaped == value
    assert type(shaped) is type(value)


@pytest.mark.parametrize(
    "annotation", [None, Any, object, dict[str, Any], "Point", int, list[int], T, Box]
)
def test_without_a_dataclass_for_it_the_value_is_unchanged(annotation: Any) -> None:
    value = {"content": 1}
    expected: object = Box(1) if annotation is Box else value

    assert shape(value, annotation) == expected


def test_a_field_whose_annotation_cannot_be_resolved_stays_as_it_is() -> None:
    shaped = shape({"point": {"x": 1}}, Unresolvable)

    assert shaped.point == {"x": 1}


def test_the_class_named_by_the_data_is_not_consulted() -> None:
    circle = home(Circle(Point(1), 2.0))

    assert shape(circle, Any) == {"center": {"x": 1, "y": 0}, "radius": 2.0}
    with pytest.raises(DecodeError):
        shape(circle, Line)


def test_post_init_does_not_run_again() -> None:
    shaped = shape(home(Touchy(5)), Touchy)

    assert (shaped.size, shaped.doubled) == (6, 10)


def test_missing_fields_take_their_defaults_each_its_own() -> None:
    one = shape({"start": {"x": 1}}, Line)
    two = shape({"start": {"x": 1}}, Line)
    one.via.append(Point(9))

    assert two == Line(Point(1))


def test_a_field_without_init_may_be_missing() -> None:
    assert not hasattr(shape({"size": 1}, Touchy), "doubled")


def test_an_instance_that_pickle_brought_home_is_left_alone() -> None:
    serializer = PickleSerializer()
    value = serializer.loads(serializer.dumps(Point(1)))

    assert shape(value, Point) is value


def test_shaping_does_not_change_the_data_it_is_given() -> None:
    data = {"start": {"x": 1}, "via": [{"x": 2}]}

    shape(data, Line)

    assert data == {"start": {"x": 1}, "via": [{"x": 2}]}


MISFITS: list[tuple[Any, Any, str]] = [
    (5, Point, "result is int"),
    (None, Point, "result is NoneType"),
    ({}, Point, "result.x is missing"),
    ({"x": 1, "z": 2}, Point, "result has 'z'"),
    ({"x": 1, 2: 2}, Point, "result has 2"),
    ({"start": 1}, Line, "result.start is int"),
    ({"start": {"x": 1}, "via": {}}, Line, "result.via is dict"),
    ({"start": {"x": 1}, "via": [{"x": 1}, []]}, Line, r"result.via\[1\] is list"),
    (
        {"start": {"x": 1}, "named": {"n": ({},)}},
        Line,
        r"result.named\['n'\]\[0\].x is missing",
    ),
    ([], dict[str, Point], "result is list"),
    ([1], tuple[Point, ...], "result is list"),
    (({"x": 1},), tuple[Point, Point], "result has 1 parts"),
    ("text", Point | None, "result is str"),
    ({"x": 1}, Line | Circle, "result"),
    ({"x": 1}, Abstract, "result cannot be made a Abstract"),
]


@pytest.mark.parametrize(("data", "annotation", "path"), MISFITS)
def test_data_that_does_not_fit_is_refused_by_path(
    data: object, annotation: Any, path: str
) -> None:
    with pytest.raises(DecodeError, match=path):
        shape(data, annotation, root="result")
