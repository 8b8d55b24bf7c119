"""Every error survives what programs do with errors: pickle, copy, raise again."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from upshot import errors
from upshot.errors import UpshotError


def make(name: str) -> UpshotError:
    """Return an error of a class, with every attribute that it can have set."""
    match name:
        case "EncodeError":
            return errors.EncodeError("no", path="result['rows'][3]")
        case "PayloadTooLargeError":
            return errors.PayloadTooLargeError("no", size=9, limit=5)
        case "CorruptRecordError":
            return errors.CorruptRecordError("no", task_id="some-id")
        case "DriverMissingError":
            return errors.DriverMissingError("no", name="redis")
        case "Retry":
            return errors.Retry("later", countdown=1.5)
        case "RemoteError":
            return errors.RemoteError(
                "shop.Broken",
                "it broke",
                args_repr=("1", "'two'"),
                traceback="Traceback …",
                bases=("builtins.ValueError",),
            )
        case _:
            plain: UpshotError = getattr(errors, name)("what failed")
            return plain


def through_pickle(error: UpshotError, protocol: int) -> UpshotError:
    restored: UpshotError = pickle.loads(pickle.dumps(error, protocol))
    return restored


COPIES: list[tuple[str, Callable[[UpshotError], UpshotError]]] = [
    ("copy", copy.copy),
    ("deepcopy", copy.deepcopy),
    *(
        (f"pickle-{protocol}", lambda error, protocol=protocol: through_pickle(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


def attributes(error: UpshotError) -> dict[str, Any]:
    """Return all that an error tells, whether it is kept in `__dict__` or by a builtin base."""
    told = {name: getattr(error, name, None) for name in dir(error) if not name.startswith("_")}
    return {name: value for name, value in told.items() if not callable(value)}


@pytest.mark.parametrize(("_how", "duplicate"), COPIES, ids=[how for how, _ in COPIES])
@pytest.mark.parametrize("name", errors.__all__)
def test_a_copy_of_an_error_tells_the_same(
    name: str, _how: str, duplicate: Callable[[UpshotError], UpshotError]
) -> None:
    error = make(name)

    again = duplicate(error)

    assert type(again) is type(error)
    assert again is not error
    assert (again.args, str(again)) == (error.args, str(error))
    assert attributes(again) == attributes(error)


@pytest.mark.parametrize("name", errors.__all__)
def test_a_note_survives_pickling(name: str) -> None:
    noted = make(name)
    noted.add_note("seen by the worker")

    restored = through_pickle(noted, pickle.HIGHEST_PROTOCOL)

    assert restored.__notes__ == ["seen by the worker"]


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_can_be_raised_twice(name: str) -> None:
    error = make(name)

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            raise error

        assert caught.value is error


def test_a_reason_travels_inside_a_retry() -> None:
    error = errors.Retry(countdown=2.0, reason=ValueError("not yet"))

    restored = through_pickle(error, pickle.HIGHEST_PROTOCOL)

    assert isinstance(restored, errors.Retry)
    assert isinstance(restored.reason, ValueError)
    assert restored.reason.args == ("not yet",)


def test_every_error_is_in_the_tree_that_the_docstring_draws() -> None:
    drawn = errors.__doc__ or ""

    assert [name for name in errors.__all__ if not re.search(rf"\b{name}\b", drawn)] == []


def test_every_error_explains_itself() -> None:
    silent = [name for name in errors.__all__ if not getattr(errors, name).__doc__]

    assert silent == []


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("ServiceUnavailableError", ConnectionError),
        ("ResultTimeoutError", TimeoutError),
        ("UnknownTaskError", LookupError),
        ("EncodeError", TypeError),
        ("DriverMissingError", ImportError),
    ],
)
def test_an_error_is_caught_as_the_builtin_that_means_the_same(
    name: str, builtin: type[Exception]
) -> None:
    with pytest.raises(builtin):
        raise getattr(errors, name)("what failed")


def test_a_remote_error_knows_what_the_original_derived_from() -> None:
    error = make("RemoteError")

    assert isinstance(error, errors.RemoteError)
    assert str(error) == "shop.Broken: it broke"
    assert error.is_("shop.Broken")
    assert error.is_("builtins.ValueError")
    assert not error.is_("builtins.KeyError")
