"""The one number that orders records."""

from __future__ import annotations

import itertools

import pytest

from upshot.states import (
    MAX_ATTEMPT,
    NEVER,
    REVOKE_RANK,
    State,
    barrier_of,
    is_terminal,
    rank_of,
)

IN_ORDER = [State.QUEUED, State.STARTED, State.RETRY]


def applies(new: tuple[str, int], old: tuple[str, int]) -> bool:
    return barrier_of(*old) <= rank_of(*new)


def test_each_step_of_a_life_applies_to_the_one_before() -> None:
    life = [(state, attempt) for attempt in (1, 2, 3) for state in IN_ORDER[(attempt > 1) :]]
    life += [(State.SUCCESS, 3)]

    for old, new in itertools.pairwise(life):
        assert applies(new, old)
        assert not applies(old, new)


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE, State.REVOKED])
def test_nothing_applies_to_a_terminal_record(end: State) -> None:
    later = [*IN_ORDER, State.SUCCESS, State.FAILURE, State.REVOKED, "CUSTOM"]

    assert barrier_of(end, 1) == NEVER
    assert not any(applies((state, MAX_ATTEMPT), (end, 1)) for state in later)


def test_a_start_is_exclusive_within_its_attempt() -> None:
    assert not applies((State.STARTED, 1), (State.STARTED, 1))
    assert applies((State.STARTED, 2), (State.STARTED, 1))


def test_progress_follows_a_start_and_other_progress_but_no_retry() -> None:
    progress = rank_of(State.STARTED, 1, progress=True)

    assert progress >= barrier_of(State.STARTED, 1)
    assert progress >= barrier_of(State.STARTED, 1, progress=True)
    assert progress < barrier_of(State.RETRY, 1)


def test_a_revocation_outranks_every_attempt() -> None:
    assert rank_of(State.REVOKED, 1) == REVOKE_RANK
    assert rank_of(State.FAILURE, MAX_ATTEMPT) < REVOKE_RANK < NEVER < 2**31


def test_an_older_attempt_cannot_end_a_newer_one() -> None:
    assert not applies((State.FAILURE, 1), (State.STARTED, 2))


def test_custom_states_are_progress() -> None:
    assert not is_terminal("BAKING")
    assert applies(("BAKING", 1), (State.STARTED, 1))
    assert applies((State.SUCCESS, 1), ("BAKING", 1))
