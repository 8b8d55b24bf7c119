"""Typed values from the text of the environment and of URLs."""

from __future__ import annotations

import pytest

from upshot.typed_text import Scalar, describe_type, parse_text, split_optional


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("a b ", str, "a b "),
        ("none", str, "none"),
        ("", str, ""),
        ("none", str | None, None),
        (" NONE ", int | None, None),
        ("", float | None, None),
        ("x", str | None, "x"),
        (" -12 ", int, -12),
        ("7", int | None, 7),
        ("1e3", float, 1000.0),
        ("2", float | None, 2.0),
        *[(word, bool, True) for word in ("1", "true", "Yes", "ON")],
        *[(word, bool, False) for word in ("0", "false", "No", "OFF")],
        ("a, b,,c ", tuple[str, ...], ("a", "b", "c")),
        ("", tuple[str, ...], ()),
    ],
)
def test_text_of_the_type_is_read(text: str, annotation: object, value: Scalar) -> None:
    found = parse_text(text, annotation)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("", int),
        ("none", int),
        ("1.0", int),
        ("1x", int),
        ("9" * 5000, int),
        ("", float),
        ("nan", float),
        ("inf", float | None),
        ("1e999", float),
        ("", bool),
        ("2", bool),
        ("t", bool | None),
    ],
)
def test_text_of_another_type_is_refused_without_repeating_it(
    text: str, annotation: object
) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        parse_text(text, annotation)

    assert str(caught.value) == f"expected {describe_type(annotation)}"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("annotation", [bytes, int | str, int | str | None, list[str], None])
def test_other_types_cannot_be_declared(annotation: object) -> None:
    with pytest.raises(TypeError, match="cannot have the type"):
        split_optional(annotation)


def test_a_type_is_described_in_words() -> None:
    assert describe_type(int) == "a whole number"
    assert describe_type(float | None) == "a finite number, or none"
