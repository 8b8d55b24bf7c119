"""The one layer of retries: what it leaves alone, and what it does not pass on."""

from __future__ import annotations

import random

import pytest

from upshot import clock
from upshot.errors import ServiceError, ServiceUnavailableError
from upshot.retrying import MIN_LOOK, DriverErrors, call, hide_secrets
from upshot.url import Url


def refuse(seconds: float) -> None:
    raise ConnectionResetError("somebody hung up")


def test_pauses_leave_the_programs_own_random_numbers_alone() -> None:
    before = random.getstate()

    with pytest.raises(ServiceUnavailableError, match="hung up"):
        call(
            refuse,
            errors=DriverErrors(transient=(ConnectionError,)),
            url=Url.parse("redis://localhost"),
            deadline=clock.Deadline(0.1),
            limit=60.0,
        )

    assert random.getstate() == before


def test_nothing_is_tried_again_when_a_try_has_taken_all_the_time() -> None:
    tries: list[float] = []

    def nearly_all(seconds: float) -> None:
        tries.append(seconds)
        clock.sleep(seconds - 0.01)
        raise TimeoutError("no answer")

    with pytest.raises(ServiceUnavailableError, match="no answer"):
        call(
            nearly_all,
            errors=DriverErrors(transient=(TimeoutError,)),
            url=Url.parse("redis://localhost"),
            deadline=clock.Deadline(None),
            limit=0.6,
        )

    assert len(tries) == 1


def test_one_try_is_made_even_if_the_time_is_up() -> None:
    tries: list[float] = []

    def refuse_noting(seconds: float) -> None:
        tries.append(seconds)
        refuse(seconds)

    with pytest.raises(ServiceUnavailableError):
        call(
            refuse_noting,
            errors=DriverErrors(transient=(ConnectionError,)),
            url=Url.parse("redis://localhost"),
            deadline=clock.Deadline(0),
            limit=60.0,
        )

    assert tries == [MIN_LOOK]


SECRET = Url.parse("redis://somebody:hush@localhost")


def refused_with(cause: Exception) -> ServiceUnavailableError:
    """Return what a call raises whose driver raised `cause`."""

    def operation(seconds: float) -> None:
        raise cause

    with pytest.raises(ServiceUnavailableError) as told:
        call(
            operation,
            errors=DriverErrors(transient=(ConnectionError,)),
            url=SECRET,
            deadline=clock.Deadline(0),
            limit=0,
        )
    hide_secrets(told.value, SECRET)
    return told.value


def test_a_drivers_error_that_says_no_secret_stays_the_cause() -> None:
    cause = ConnectionResetError("somebody hung up")

    error = refused_with(cause)

    assert error.__cause__ is cause
    assert error.__context__ is cause


@pytest.mark.parametrize("place", ["text", "arguments", "attribute", "cause", "context"])
def test_a_drivers_error_that_says_a_secret_leaves_its_name_and_the_rest_of_its_text(
    place: str,
) -> None:
    cause = ConnectionResetError("hush is wrong" if place == "text" else "it is wrong")
    if place == "arguments":
        cause.args = ("it is wrong", b"hush")
    if place == "attribute":
        cause.dsn = "user=somebody password=hush"  # type: ignore[attr-defined]
    if place in ("cause", "context"):
        setattr(cause, f"__{place}__", ValueError("hush"))

    error = refused_with(cause)

    assert error.__context__ is None
    assert type(error.__cause__) is ServiceError
    assert "builtins.ConnectionResetError: " in str(error.__cause__)
    assert "is wrong" in str(error.__cause__)
    assert "hush" not in f"{error!r} {error.__cause__!r}"
    assert error.__cause__.__traceback__ is cause.__traceback__


def test_exceptions_that_are_chained_in_a_circle_are_looked_at_once() -> None:
    first, second = ConnectionResetError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first

    assert refused_with(first).__cause__ is first
