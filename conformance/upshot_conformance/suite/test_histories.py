"""Histories: what several clients, threads and processes are told at once fits into one order.

One contest serves all tests of a backend. Each test answers for one clause.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot_conformance.clauses import clause
from upshot_conformance.concurrency import start
from upshot_conformance.histories import History, has_one_clock
from upshot_conformance.linearizability import Operation
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite import contest, elsewhere
from upshot_conformance.timing import Timing


@pytest.fixture(scope="module")
def impossible(
    target: Target, run: Run, capabilities: Capabilities, timing: Timing
) -> Iterator[dict[str, list[str]]]:
    """Per clause that was broken, why what was told is impossible."""
    namespace = f"{run.namespaces}-histories"
    expires = None if capabilities.expiry_resolution is None else 600.0
    with contextlib.ExitStack() as stack:
        harness = target.open_harness()
        if harness is not None:
            stack.callback(harness.close)
            stack.callback(harness.purge, namespace)

        def opened() -> ResultClient:
            made = ResultClient(target.make, url=target.url, namespace=namespace, expires=expires)
            return stack.enter_context(made)

        first, second = opened(), opened()
        players = [("one", first), ("two", first), ("three", second), ("four", second)]
        rounds = contest.rounds_for(timing.round_trip)
        if capabilities.shared and has_one_clock():
            operations = with_another_process(target, namespace, players, rounds, run.seed)
        else:
            operations = contest.compete(players, rounds=rounds, seed=run.seed)
        yield judged(target, run, capabilities, operations)


def with_another_process(
    target: Target,
    namespace: str,
    players: list[tuple[str, ResultClient]],
    rounds: int,
    seed: int,
) -> list[Operation]:
    """Compete with two threads of another process, too."""
    with elsewhere.Other(
        target, namespace, "take_part", names=["five", "six"], rounds=rounds, seed=seed
    ) as other:
        others = start(other.finish)
        ours = contest.compete(players, rounds=rounds, seed=seed)
        return ours + contest.from_wire(others.result(2 * elsewhere.SECONDS))


def judged(
    target: Target, run: Run, capabilities: Capabilities, operations: list[Operation]
) -> dict[str, list[str]]:
    """Check a history; save it if it is impossible."""
    visibility = capabilities.visibility
    history = History(target.label, run.seed, visibility, tuple(operations))
    found: dict[str, list[str]] = {}
    for violation in history.violations():
        clause_id = contest.blame(violation.task_id, operations, visibility=visibility)
        found.setdefault(clause_id, []).append(str(violation))
    if found:
        folder = run.folder / "histories" if run.folder else Path(tempfile.mkdtemp())
        path = folder / f"{target.label}-{run.seed}.jsonl"
        history.save(path)
        for texts in found.values():
            texts.append(f"to check it again: python -m {History.__module__} {path}")
    return found


@pytest.mark.needs("atomic")
@pytest.mark.needs("intermediate")
@pytest.mark.needs("reread")
@pytest.mark.parametrize(
    "clause_id",
    [pytest.param(each, marks=clause(each), id=each) for each in contest.BLAMED],
)
def test_what_concurrent_clients_are_told_fits_into_one_order(
    impossible: dict[str, list[str]], clause_id: str
) -> None:
    found = impossible.get(clause_id, [])

    if found:
        more = f"\nand {len(found) - 2} more ids" if len(found) > 2 else ""
        pytest.fail(f"{clause_id} is broken: {found[0]}{more}\n{found[-1]}", pytrace=False)
