"""The suite is tested by broken backends: the clause that each one breaks must go red.

Of each clause the first mutants are judged here, which takes minutes. `make mutants` judges all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import pytest

from upshot_conformance.clauses import CLAUSES

from . import mutants
from .mutants import core, judge
from .mutants.judge import Fate, Judgement
from .mutants.kinds import Mutant
from .mutants.over import MUTANT

T = TypeVar("T")

BACKENDS = [each for each in mutants.backends() if each.kills]
CONTROLS = [each for each in mutants.backends() if not each.kills]
PER_CLAUSE = 1
ELSEWHERE = 10
"""How many are judged above each of the other services, too."""


def runs() -> Iterator[tuple[str, Callable[[], Judgement]]]:
    """Yield every run that must find something, with its name."""
    for mutant in first(BACKENDS, PER_CLAUSE, lambda mutant: mutant.kills):
        over = "redis" if mutant.network_only else "memory"
        yield f"{mutants.name_of(mutant)}-{over}", partial(above, mutant, over)
    for over in ("redis", "sqlite"):
        real = [mutant for mutant in BACKENDS if mutant.is_a_bug_above(over)]
        chosen = first(real, PER_CLAUSE, lambda mutant: mutant.kills)
        for mutant in islice(chosen, ELSEWHERE):
            yield f"{mutants.name_of(mutant)}-{over}", partial(above, mutant, over)
    for name in first(core.MUTANTS, PER_CLAUSE, lambda name: core.MUTANTS[name][0]):
        yield f"core: {name}", partial(judge.core, name, core.MUTANTS[name][0])


def first(all_of_them: Iterable[T], count: int, clause_of: Callable[[T], str]) -> Iterator[T]:
    """Yield the first few of each clause."""
    seen: Counter[str] = Counter()
    for each in all_of_them:
        seen[clause_of(each)] += 1
        if seen[clause_of(each)] <= count:
            yield each


def above(mutant: type[Mutant], over: str) -> Judgement:
    name = mutants.name_of(mutant)
    return judge.backend(name, mutant.kills, over=over, disruptive=mutant.disruptive)


RUNS = dict(runs())


@pytest.mark.apart
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.timeout(judge.SECONDS + 60)
def test_the_clause_that_a_mutant_breaks_goes_red(run: str) -> None:
    judgement = RUNS[run]()

    assert judgement.fate is Fate.KILLED, judgement.text


@pytest.mark.apart
@pytest.mark.parametrize("control", CONTROLS, ids=mutants.name_of)
@pytest.mark.timeout(judge.SECONDS + 60)
def test_a_backend_that_is_only_odd_stays_green(control: type[Mutant]) -> None:
    outcome = judge.control(mutants.name_of(control))

    assert outcome.code == pytest.ExitCode.OK, outcome.text


def test_what_works_undeclared_is_reported_and_not_red() -> None:
    outcome = judge.run(
        "--backend=mutant+memory",
        *("--clause=ST-1", "--clause=RD-1", "--clause=ST-5"),
        environment={MUTANT: "controls:Modest"},
        timeout=judge.SECONDS,
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "works although undeclared: RD-1 ST-1" in outcome.text
    reason = r"^not applicable: ST-5 \(.*intermediate is not declared.*\)$"
    assert re.search(reason, outcome.text, re.MULTILINE), outcome.text


def test_a_mutant_that_does_not_even_work_is_not_killed_but_broken() -> None:
    missing = judge.backend("states:NoSuchMutant", "ST-3", disruptive=False)

    assert missing.fate is Fate.BROKEN, missing.text


def test_every_clause_that_is_tested_is_killed_by_some_mutant() -> None:
    killed = {each.kills for each in BACKENDS}
    killed |= {clause_id for clause_id, _ in core.MUTANTS.values()}

    assert killed <= CLAUSES.keys()
    assert len(killed) >= 38
