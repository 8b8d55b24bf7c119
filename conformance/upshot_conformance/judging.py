"""One test of the suite: whether it applies to the backend, and what its end says about it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest

from upshot.backend import Capabilities
from upshot_conformance.clauses import CLAUSES, BrokenClauseError
from upshot_conformance.findings import KIND, Kind
from upshot_conformance.harness import NotApplicableError, UnavailableError
from upshot_conformance.options import Options
from upshot_conformance.selection import Target

__all__ = ["Judge", "clause_ids", "target_of"]

_SHOWN: Final = {Kind.ABSENT: "not applicable", Kind.PROBE: "not applicable"}


class Judge:
    """Registered as a pytest plugin; skips what does not apply and tells ends apart.

    Args:
        options: what the run was asked for.
        parallel: other processes run tests on the same services at this moment.
    """

    def __init__(self, options: Options, *, parallel: bool) -> None:
        self._options = options
        self._parallel = parallel

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what does not apply to what the backend declares, and say why."""
        if not clause_ids(item):
            return
        capabilities = target_of(item).capabilities
        assert capabilities is not None, "only --collect-only leaves a target unasked"
        if item.get_closest_marker("disruptive"):
            self._stop_unless_disruptive(item)
        for mark in item.iter_markers("lacks"):
            if _has(capabilities, mark.args[0]):
                item.user_properties.append((KIND, f"{Kind.DECLARED}: {mark.args[0]}"))
                pytest.skip(f"not applicable: {mark.args[0]} is declared")
            item.user_properties.append((KIND, Kind.REFUSAL.value))  # xdist sends plain text
        for mark in item.iter_markers("needs"):
            if not _has(capabilities, mark.args[0]):
                reason = f"{mark.args[0]} is not declared"
                if mark.kwargs.get("probe"):
                    item.user_properties.append((KIND, f"{Kind.PROBE}: {reason}"))
                    return
                item.user_properties.append((KIND, f"{Kind.ABSENT}: {reason}"))
                pytest.skip(f"not applicable: {reason}")

    def _stop_unless_disruptive(self, item: pytest.Item) -> None:
        """Skip a test that disturbs the service, unless the service is there to be disturbed."""
        if not self._options.disruptive:
            item.user_properties.append((KIND, f"{Kind.NOT_ASKED}: --disruptive was not given"))
            pytest.skip("not asked for: --disruptive was not given")
        if not target_of(item).private or self._parallel:
            raise UnavailableError("only a service that was started for this run is disturbed")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the broken clause first, and tell failures from what could not be found out."""
        report = yield
        ids = clause_ids(item)
        if ids and report.failed and call.excinfo:
            error = call.excinfo.value
            if isinstance(error, BrokenClauseError):
                ids = [error.clause_id]
            said = self._excuse(item, report, error, ids)
            if said is None:
                self._accuse(report, ids)
            else:
                kind, reason = said
                report.user_properties.append((KIND, f"{kind}: {reason}"))
                _turn_into_skip(report, f"{_SHOWN.get(kind, kind.value)}: {reason}")
        return report

    def _excuse(
        self, item: pytest.Item, report: pytest.TestReport, error: BaseException, ids: list[str]
    ) -> tuple[Kind, str] | None:
        """Return why an error says nothing against the backend, or nothing new."""
        said = next((str(value) for name, value in report.user_properties if name == KIND), "")
        if isinstance(error, UnavailableError):
            return Kind.UNAVAILABLE, str(error)
        if isinstance(error, NotApplicableError):
            return Kind.ABSENT, str(error)
        if said.startswith(Kind.PROBE):
            return Kind.PROBE, said.partition(": ")[2]
        waiver = self._options.waivers.covering(ids)
        if waiver is not None and waiver.matches(error):
            return Kind.WAIVED, f"{waiver.clause}, {waiver.kind}: {waiver.reason} ({waiver.issue})"
        contract = target_of(item).contract
        if all(CLAUSES[each].level_for(contract) == "provisional" for each in ids):
            return Kind.PROVISIONAL, f"the backend was written for contract {contract}"
        return None

    def _accuse(self, report: pytest.TestReport, ids: list[str]) -> None:
        lines = [f"broken clause {each}: {CLAUSES[each].text}" for each in ids]
        waiver = self._options.waivers.covering(ids)
        if waiver is not None:
            known = " or ".join(map(repr, waiver.message))
            lines.append(f"its waiver is for failures that begin with {known}")
        report.longrepr = "\n".join([*lines, "", report.longreprtext])
        others = [each for each in report.user_properties if each[0] != "clause"]
        report.user_properties[:] = [*(("clause", each) for each in ids), *others]


def clause_ids(item: pytest.Item) -> list[str]:
    """Return the clauses that a test checks; none for a test that is not of a suite."""
    return [str(each) for mark in item.iter_markers("clause") for each in mark.args]


def target_of(item: pytest.Item) -> Target:
    """Return the backend that a test of the suite is for."""
    assert isinstance(item, pytest.Function), "the suite's tests are functions"
    target = item.callspec.params["target"]
    assert isinstance(target, Target), "the suite's tests are parametrised by target"
    return target


def _has(capabilities: Capabilities, name: str) -> bool:
    """Tell whether a capability is declared; a number is, None is not."""
    value = getattr(capabilities, name)
    return value is not None and value is not False


def _turn_into_skip(report: pytest.TestReport, reason: str) -> None:
    path, line, _ = report.location
    report.outcome = "skipped"
    report.longrepr = (path, line or 0, f"Skipped: {reason}")
