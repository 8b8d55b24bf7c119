"""The model: random programs of calls show nothing that a dict with the contract's rules does not.

One exploration serves all tests of a backend: it stops at the first difference between the backend
and the model, which is blamed on the clause that forbids it, and goes on with other programs. Each
test below then answers for one clause, so that a report names what is broken and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot_conformance.clauses import CLAUSES, clause
from upshot_conformance.selection import Run, Target
from upshot_conformance.suite.following import Setting
from upshot_conformance.suite.programs import BLAMED, explore
from upshot_conformance.timing import Timing


@pytest.fixture(scope="module")
def breaches(
    target: Target, run: Run, timing: Timing, capabilities: Capabilities
) -> Iterator[dict[str, str]]:
    """Per clause that was broken, the shortest program that shows it."""
    namespace = f"{run.namespaces}-model"
    with contextlib.ExitStack() as stack:
        harness = target.open_harness()
        if harness is not None:
            stack.callback(harness.close)
            stack.callback(harness.purge, namespace)

        def opened() -> ResultClient:
            expires = None if capabilities.expiry_resolution is None else 600.0
            return ResultClient(target.make, url=target.url, namespace=namespace, expires=expires)

        setting = Setting(opened, capabilities, timing, namespace, harness)
        yield explore(setting, run.seed)


def answering_for(clause_id: str) -> ParameterSet:
    """Return the parameter of a test for one clause, which runs where the clause binds."""
    marks = [clause(clause_id)]
    gate = "scan" if clause_id == "CP-3" else CLAUSES[clause_id].gate
    if gate:
        marks.append(pytest.mark.needs(gate))
    return pytest.param(clause_id, marks=marks, id=clause_id)


@pytest.mark.needs("reread")
@pytest.mark.parametrize("clause_id", [answering_for(clause_id) for clause_id in BLAMED])
def test_no_program_of_calls_shows_what_the_model_does_not(
    breaches: dict[str, str], clause_id: str
) -> None:
    program = breaches.get(clause_id, "")

    if program:
        pytest.fail(f"{clause_id} is broken by this program:\n{program}", pytrace=False)
