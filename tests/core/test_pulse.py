"""A consumer gives signs of life while its threads come round, and none when one does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from upshot.engine import Pulse
from upshot.settings import Settings
from upshot.testing import Clock

# Thirty seconds of a lease, two calls of five seconds each, and ten more.
PATIENCE = 50


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture
def beats() -> list[None]:
    return []


@pytest.fixture
def pulse(clock: Clock, beats: list[None]) -> Pulse:
    return Pulse(Settings(), beat=lambda: beats.append(None))


def test_it_beats_while_messages_are_fetched_and_leases_renewed(
    pulse: Pulse, clock: Clock, beats: list[None]
) -> None:
    for _ in range(10):
        clock.travel(PATIENCE - 1)
        pulse.fetching()
        pulse.renewing()
        pulse.look(is_busy=False)

    assert len(beats) == 10


def test_a_task_may_take_as_long_as_it_likes(pulse: Pulse, clock: Clock, beats: list[None]) -> None:
    clock.travel(10 * PATIENCE)
    pulse.renewing()
    pulse.look(is_busy=True)
    clock.travel(1)
    pulse.look(is_busy=False)

    assert len(beats) == 2


def test_it_does_not_beat_when_nothing_is_fetched_and_nothing_runs(
    pulse: Pulse, clock: Clock, beats: list[None]
) -> None:
    clock.travel(PATIENCE + 1)
    pulse.renewing()
    pulse.look(is_busy=False)

    assert beats == []


@pytest.mark.parametrize("is_busy", [False, True])
def test_it_does_not_beat_when_leases_are_not_renewed(
    pulse: Pulse, clock: Clock, beats: list[None], is_busy: bool
) -> None:
    clock.travel(PATIENCE + 1)
    pulse.fetching()
    pulse.look(is_busy=is_busy)

    assert beats == []
