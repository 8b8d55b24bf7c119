"""The model decides as the contract does, and blames the clause that was broken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from upshot.backend import Backend
from upshot.client import ResultClient
from upshot.record import Record
from upshot.states import State
from upshot_conformance.records import failure, revoked, success, unfinished
from upshot_conformance.selection import Target
from upshot_conformance.suite import programs
from upshot_conformance.suite.following import BreachError, Follower, Setting
from upshot_conformance.suite.model import Model
from upshot_conformance.timing import Timing

from .mutants import states
from .mutants.kinds import Mutant

TARGET = Target("memory", "memory://model")
END, LATE, OTHER = success("a", 1), unfinished("a"), failure("a", ValueError("x"))


@pytest.mark.parametrize(
    ("stored", "record", "applied", "clause_id"),
    [
        ([], END, True, "ST-8"),
        ([END], LATE, False, "ST-2"),
        ([END], OTHER, False, "ST-3"),
        ([END], END, False, "ST-3"),
        ([END], revoked("a"), False, "ST-6"),
        ([revoked("a")], END, False, "ST-6"),
        ([unfinished("a", attempt=2)], END, False, "ST-5"),
        ([LATE], LATE, False, "ST-5"),
        ([LATE], unfinished("a", State.RETRY), True, "ST-5"),
        ([unfinished("a", State.RETRY)], unfinished("a", attempt=2), True, "ST-5"),
        ([unfinished("a", attempt=9)], revoked("a"), True, "ST-5"),
    ],
)
def test_a_record_applies_as_the_contract_says(
    stored: list[Record], record: Record, applied: bool, clause_id: str
) -> None:
    model = Model()
    for each in stored:
        model.store(each)

    assert model.applies(record) is applied
    assert model.store(record) == (applied, clause_id)
    assert model.get("a") == (record if applied else stored[-1])


def test_what_is_removed_is_gone_and_its_id_can_be_used_anew() -> None:
    model = Model()
    model.store(END)
    model.remove("a", "forgotten")
    model.remove("unknown", "expired")

    assert model.live() == {}
    assert model.store(LATE) == (True, "RL-2")
    assert model.store(success("unknown", 1)) == (True, "EX-4")


@pytest.mark.parametrize(
    ("stored", "absence", "seen", "clause_id"),
    [
        ([], None, END, "ID-1"),
        ([END], "forgotten", END, "RL-2"),
        ([END], "expired", END, "EX-1"),
        ([END], None, None, "ST-8"),
        ([END], None, success("b", 1), "ID-2"),
        ([END, LATE], None, LATE, "ST-2"),
        ([END, OTHER], None, OTHER, "ST-3"),
        ([LATE, END], None, LATE, "ST-8"),
        ([END], None, END._replace(outcome=None), "ST-1"),
    ],
)
def test_what_is_read_and_should_not_be_is_blamed_on_a_clause(
    stored: list[Record], absence: str | None, seen: Record | None, clause_id: str
) -> None:
    model = Model()
    for each in stored:
        model.store(each)
    if absence == "forgotten":
        model.remove("a", "forgotten")
    elif absence == "expired":
        model.remove("a", "expired")

    assert model.blame("a", seen) == clause_id


@pytest.mark.parametrize("clause_id", ["RD-1", "FT-3", "ID-2", "BT-3"])
def test_a_loss_is_blamed_on_what_happened_last(clause_id: str) -> None:
    model = Model()
    model.store(END)

    model.suspect("a", clause_id)

    assert model.blame("a", None) == clause_id
    assert model.blame("a", OTHER) == "ST-1"


class Opener:
    """Opens clients above a mutant, or above none."""

    def __init__(self, mutant: type[Mutant] | None, namespace: str) -> None:
        self._mutant = mutant
        self._namespace = namespace
        self.opened: list[ResultClient] = []

    def __call__(self) -> ResultClient:
        def make() -> Backend:
            below = TARGET.make()
            return below if self._mutant is None else self._mutant.above(below)

        made = ResultClient(make, url=TARGET.url, namespace=self._namespace, expires=600)
        self.opened.append(made)
        return made


def setting(mutant: type[Mutant] | None, namespace: str) -> Setting:
    timing = Timing(round_trip=0.001, jitter=0.05, within=5, quiet=0.1, poll=0.002)
    capabilities = TARGET.make().capabilities
    return Setting(Opener(mutant, namespace), capabilities, timing, namespace, None)


@pytest.fixture
def late_starts() -> Iterator[tuple[Setting, Follower]]:
    where = setting(states.LateStartOverwrites, "late-starts")
    follower = Follower(where)
    yield where, follower
    follower.close()


def test_a_breach_shows_the_calls_that_led_to_it(late_starts: tuple[Setting, Follower]) -> None:
    where, follower = late_starts
    follower.store("one", follower.record("a", State.SUCCESS, 1))
    follower.forget("two", [follower.id_of("b")])

    with pytest.raises(BreachError) as caught:
        follower.store("two", follower.record("a", State.STARTED, 1))

    assert caught.value.clause_id == "ST-2"
    assert str(caught.value).splitlines() == where.found["ST-2"] == [
        "one.store('a' SUCCESS of attempt 1, no. 1) → True",
        "two.forget(['b']) → None",
        "two.load('a') → 'a' SUCCESS of attempt 1, no. 1",
        "two.store('a' STARTED of attempt 1, no. 2) → True",
        "    the model says False",
    ]  # fmt: skip


def test_programs_find_a_breach_and_make_it_short() -> None:
    where = setting(states.LateStartOverwrites, "short")

    found = programs.explore(where, seed=1)

    assert "ST-2" in found
    assert len(found["ST-2"].splitlines()) < 10
    assert isinstance(where.open, Opener)
    assert not any(client.stats()["waiters"] for client in where.open.opened)


def test_programs_find_nothing_where_nothing_is_broken_and_repeat_themselves() -> None:
    runs = [setting(None, f"sound-{number}") for number in range(2)]

    assert [programs.explore(where, seed=5) for where in runs] == [{}, {}]
    assert runs[0].programs == runs[1].programs >= 20
