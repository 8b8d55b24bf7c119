"""One run of the suite inside pytest: what is tested, which tests apply, what came out."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot_conformance import fixtures
from upshot_conformance.clauses import CLAUSES, CONTRACT
from upshot_conformance.harness import UnavailableError
from upshot_conformance.plugin import WIRE
from upshot_conformance.selection import RUN, Run, SelectionError, Selector, Target
from upshot_conformance.verdict import KIND, Kind, Tally

__all__ = ["SuiteSession"]

_FIXTURES: Final = "upshot-conformance-fixtures"
_PREFIX: Final = "cf-"


class SuiteSession:
    """Registered as a pytest plugin once the suite is used, in controller and workers alike.

    Raises:
        pytest.UsageError: a backend that was asked for cannot be tested.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._chosen: list[str] = config.getoption("upshot_conformance_backends") or []
        self._clauses = _clauses(config.getoption("upshot_conformance_clauses") or [])
        self._wire: dict[str, Any] | None = getattr(config, "workerinput", {}).get(WIRE)
        self._stack = contextlib.ExitStack()
        self._selector = Selector(config.rootpath, self._stack)
        self._tallies: dict[str, Tally] = {}
        started = clock.to_datetime(clock.now())
        self._namespaces = f"{_PREFIX}{started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.targets = self._select()
        """What is tested, in the order it was asked for."""
        config.stash[RUN] = Run(self._namespaces, parallel=self._wire is not None)
        config.pluginmanager.register(fixtures, _FIXTURES)

    def _select(self) -> list[Target]:
        if self._wire is not None:
            self._namespaces = f"{self._wire['namespaces']}-{secrets.token_hex(2)}"
            return [Target.from_wire(wire) for wire in self._wire["targets"]]
        values = self._chosen or ["memory"]
        if self._config.getoption("collectonly"):
            return [Target(value.partition("://")[0], value) for value in values]
        try:
            return self._selector.select(values)
        except SelectionError as exc:
            self._stack.close()
            raise pytest.UsageError(str(exc)) from None  # one message, no traceback

    # -- what is said before the tests ------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        """Say what is tested."""
        return list(self._headlines())

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say it after the collection, if only that showed that the suite is used."""
        if self._chosen:
            return []
        return ["no --backend was given: only memory is tested", *self._headlines()]

    def _headlines(self) -> Iterator[str]:
        for target in self.targets:
            if target.capabilities is None:
                yield f"conformance: {target.label}, not asked: nothing is run"
                continue
            yield (
                f"conformance: {target.label} ({target.offer}) at {target.url}, "
                f"contract {target.contract}"
            )
            yield f"  capabilities: {', '.join(_declared(target.capabilities))}"

    # -- which tests there are ----------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test that uses a backend once per chosen one."""
        if "target" in metafunc.fixturenames:
            labels = [target.label for target in self.targets]
            metafunc.parametrize("target", self.targets, ids=labels, indirect=True, scope="session")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Note each test's clauses in its reports; keep those that `--clause` asks for."""
        kept: list[pytest.Item] = []
        for item in items:
            ids = _clause_ids(item)
            if ids:
                item.user_properties += [("clause", clause_id) for clause_id in ids]
                item.user_properties.append(("backend", _target(item).label))
            if self._clauses.intersection(ids) or not self._clauses:
                kept.append(item)
        if len(kept) < len(items):
            config.hook.pytest_deselected(items=[item for item in items if item not in kept])
            items[:] = kept

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker what to test."""
        wires = [target.to_wire() for target in self.targets]
        node.workerinput[WIRE] = {"targets": wires, "namespaces": self._namespaces}

    # -- one test -----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what does not apply to what the backend declares, and say why."""
        if not _clause_ids(item):
            return
        capabilities = _target(item).capabilities
        assert capabilities is not None, "only --collect-only leaves a target unasked"
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

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the broken clause first, and tell failures from what could not be found out."""
        report = yield
        ids = _clause_ids(item)
        if not ids or not report.failed:
            return report
        error = call.excinfo.value if call.excinfo else None
        said = next((str(value) for name, value in report.user_properties if name == KIND), "")
        if isinstance(error, UnavailableError):
            report.user_properties.append((KIND, f"{Kind.UNAVAILABLE}: {error}"))
            _turn_into_skip(report, f"unavailable: {error}")
        elif said.startswith(Kind.PROBE):
            _turn_into_skip(report, f"not applicable: {said.partition(': ')[2]}")
        else:
            broken = "\n".join(f"broken clause {each}: {CLAUSES[each].text}" for each in ids)
            report.longrepr = f"{broken}\n\n{report.longreprtext}"
        return report

    # -- what came out ------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a report to its backend's tally."""
        for name, value in report.user_properties:
            if name == "backend":
                self._tallies.setdefault(str(value), Tally(str(value))).add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run red that proved nothing about a backend."""
        nothing = any(tally.proves_nothing for tally in self._tallies.values())
        untested = bool(self._selector.unavailable)
        if session.exitstatus == pytest.ExitCode.OK and (nothing or untested):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a table and a verdict per backend."""
        for tally in self._tallies.values():
            terminalreporter.section(f"conformance of {tally.label}, contract {CONTRACT}")
            for line in tally.lines():
                terminalreporter.write_line(line)
        for scheme, reason in self._selector.unavailable.items():
            terminalreporter.write_line(f"NOT TESTED: {scheme}: {reason}")

    def pytest_unconfigure(self) -> None:
        """Remove what a crashed worker may have left, and end the private services."""
        if self._wire is None and self._tallies:
            for target in self.targets:
                _purge(target, self._namespaces)
        self._stack.close()


def _clauses(wanted: Iterable[str]) -> set[str]:
    """Return the ids of the clauses and groups that `--clause` names.

    Raises:
        pytest.UsageError: one of them does not exist.
    """
    chosen: set[str] = set()
    for want in wanted:
        ids = {each for each in CLAUSES if each == want or each.startswith(f"{want}-")}
        if not ids:
            groups = ", ".join(dict.fromkeys(each.partition("-")[0] for each in CLAUSES))
            raise pytest.UsageError(f"--clause={want}: no such clause; the groups are {groups}")
        chosen |= ids
    return chosen


def _clause_ids(item: pytest.Item) -> list[str]:
    return [str(each) for mark in item.iter_markers("clause") for each in mark.args]


def _target(item: pytest.Item) -> Target:
    assert isinstance(item, pytest.Function), "the suite's tests are functions"
    target = item.callspec.params["target"]
    assert isinstance(target, Target), "the suite's tests are parametrised by target"
    return target


def _has(capabilities: Capabilities, name: str) -> bool:
    """Tell whether a capability is declared; a number is, None is not."""
    value = getattr(capabilities, name)
    return value is not None and value is not False


def _declared(capabilities: Capabilities) -> Iterable[str]:
    for field in fields(capabilities):
        value = getattr(capabilities, field.name)
        if value is True:
            yield field.name
        elif value is not False and value is not None:
            yield f"{field.name}={value}"


def _turn_into_skip(report: pytest.TestReport, reason: str) -> None:
    path, line, _ = report.location
    report.outcome = "skipped"
    report.longrepr = (path, line or 0, f"Skipped: {reason}")


def _purge(target: Target, namespaces: str) -> None:
    harness = target.open_harness()
    if harness is not None:
        with contextlib.closing(harness):
            harness.purge(namespaces)
