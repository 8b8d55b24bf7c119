"""The one layer of retries: what it leaves alone."""

from __future__ import annotations

import random

import pytest

from upshot import clock
from upshot.errors import ServiceUnavailableError
from upshot.retrying import DriverErrors, call
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
