"""What goes there and back: arguments, values, errors, and results that are pickled."""

from __future__ import annotations

import math
import pickle
import sys
from collections import OrderedDict
from typing import Any

import django
import pytest
from django.tasks import Task
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from tests.contrib.django_tasks.tasks import Level, Size
from tests.contrib.django_tasks.untyped import task_backends, tasks
from upshot_contrib.django.tasks.errors import UpshotTaskError
from upshot_contrib.django.tasks.values import plain

pytestmark = pytest.mark.usefixtures("worker")


class Number(float):
    """A number that `json` writes like any other."""


# -- values that JSON has a form for -------------------------------------------------------------


WRITTEN: list[tuple[Any, Any]] = [
    (mark_safe("<b>"), "<b>"),
    (Size.LARGE, "L"),
    (Level.HIGH, 3),
    (Number(1.5), 1.5),
    ({Size.LARGE: [mark_safe("x")]}, {"L": ["x"]}),
    (OrderedDict(a=1), {"a": 1}),
    ({1: "a", None: "b", 1.5: "c", False: "d"}, {1: "a", None: "b", 1.5: "c", False: "d"}),
    (range(3), [0, 1, 2]),
    (b"text", "text"),
    (True, True),
    (2**70, 2**70),
    (math.inf, math.inf),
    ("\udc80\x00\U0001f600", "\udc80\x00\U0001f600"),
]
"""Values, and what comes of them."""


@pytest.mark.parametrize(("given", "comes"), WRITTEN)
def test_what_json_writes_can_be_an_argument(given: Any, comes: Any) -> None:
    result = tasks.everything.enqueue(given, named=given)

    assert result.args == [comes]
    assert result.wait(timeout=20).return_value == [[comes], {"named": comes}]
    again = tasks.everything.get_result(result.id)
    assert again.return_value == [[comes], {"named": comes}]
    assert kinds(again.args[0]) == kinds(comes) == kinds(result.args[0])
    assert again == result


def kinds(value: Any) -> Any:
    """Return a value with the types of what is in it."""
    name = type(value).__name__
    if name == "dict":
        return {kinds(key): kinds(item) for key, item in value.items()}
    return [kinds(each) for each in value] if name == "list" else (name, value)


@pytest.mark.parametrize(
    ("task", "comes"),
    [(tasks.subclasses, ["<b>", "L", 3, {"L": 3}]), (tasks.subclasses_later, "<b>")],
)
def test_and_a_value(task: Task[..., Any], comes: Any) -> None:
    result: Any = task.enqueue()

    assert result.wait(timeout=20).return_value == comes
    assert kinds(result.return_value) == kinds(comes)


def test_what_says_something_else_of_itself_is_written_as_json_writes_it() -> None:
    class Loud(str):
        def __str__(self) -> str:
            return "LOUD"

    found = plain([Loud("quiet"), SafeString("safe")])

    assert found == ["quiet", "safe"]
    assert [type(each) for each in found] == [str, str]


def test_what_json_has_no_form_for_is_refused() -> None:
    for argument in (gettext_lazy("x"), 1j, object(), {(1, 2): 3}):
        with pytest.raises(TypeError):
            tasks.nothing.enqueue(argument)


def test_bytes_that_are_no_text_are_refused_as_django_does() -> None:
    with pytest.raises(ValueError, match="Unsupported value"):
        tasks.nothing.enqueue(b"\xff")


# -- classes of errors ---------------------------------------------------------------------------


def error(path: str) -> UpshotTaskError:
    """Return an error whose class is said to be that."""
    return UpshotTaskError(exception_class_path=path, traceback="")


@pytest.mark.parametrize("path", ["subprocess.run", "os.path", "builtins.int", "sys.modules"])
def test_what_is_no_exception_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"'{path}' does not reference a valid exception"):
        _ = error(path).exception_class


@pytest.mark.parametrize(
    "path",
    [
        "does.not.exist",
        "tests.contrib.django_tasks.tasks.fail.<locals>.Error",
        "ValueError",
    ],
)
def test_a_class_that_is_not_here_is_an_import_error(path: str) -> None:
    with pytest.raises(ImportError, match="is loaded in this process"):
        _ = error(path).exception_class


def test_so_is_what_is_no_name_at_all() -> None:
    for path in ("", ".", "a." * 100_000, "builtins.\ud800"):
        with pytest.raises(ImportError, match="is loaded in this process"):
            _ = error(path).exception_class


def test_a_record_lets_no_module_be_imported() -> None:
    module = "this"
    assert module not in sys.modules, "choose a module that nothing imports"

    with pytest.raises(ImportError, match="none is imported because a result names it"):
        _ = error(f"{module}.Error").exception_class

    assert module not in sys.modules


def test_a_class_within_a_class_is_found() -> None:
    found = error("django.contrib.auth.models.User.DoesNotExist").exception_class

    assert found.__qualname__ == "User.DoesNotExist"


def test_what_came_from_a_record_looks_only_at_what_is_loaded() -> None:
    result = tasks.refuse.enqueue().wait(timeout=20)

    for each in (result, tasks.refuse.get_result(result.id)):
        assert type(each.errors[0]) is UpshotTaskError
        assert each.errors[0].exception_class is tasks.RefusedError


# -- results as values ---------------------------------------------------------------------------


@pytest.mark.skipif(django.VERSION < (6, 1), reason="tasks can be pickled since Django 6.1")
def test_tasks_and_results_can_be_pickled() -> None:
    variant = tasks.add.using(priority=3, queue_name="mail")
    result = tasks.refuse.enqueue().wait(timeout=20)

    assert pickle.loads(pickle.dumps(variant)) == variant
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert again.errors == result.errors
    again.refresh()
    assert again.wait(timeout=0) == result


def test_results_are_equal_when_django_says_so() -> None:
    result = tasks.add.enqueue(1, 2)
    again = tasks.add.get_result(result.id)

    assert again == result
    assert hash(again) == hash(result)
    assert type(result).__eq__ is type(result).__mro__[1].__eq__
    assert len({result, again}) == 1
    assert result != tasks.add.enqueue(1, 2)
    assert result != "a result"
    assert task_backends["default"].get_result(result.id).id == result.id
