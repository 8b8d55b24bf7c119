"""One run of the suite inside pytest: what is tested, with what, and what came out."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

from upshot import clock
from upshot.backend import Capabilities
from upshot_conformance import evidence, fixtures, leftovers, report
from upshot_conformance.contract import CONTRACT
from upshot_conformance.judging import Judge, clause_ids, target_of
from upshot_conformance.options import Options
from upshot_conformance.plugin import SUITE, WIRE
from upshot_conformance.selection import RUN, Run, SelectionError, Selector, Target
from upshot_conformance.timing import Timing
from upshot_conformance.verdict import Tally

__all__ = ["SuiteSession"]

_FIXTURES: Final = "upshot-conformance-fixtures"
_JUDGE: Final = "upshot-conformance-judge"

_CROWDED: Final = 2.0
"""By which factor time bounds are widened where xdist runs such tests beside others."""


class SuiteSession:
    """Registered as a pytest plugin once the suite is used, in controller and workers alike.

    Raises:
        pytest.UsageError: a backend that was asked for cannot be tested.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._options = Options.read(config)
        self._wire: dict[str, Any] | None = getattr(config, "workerinput", {}).get(WIRE)
        self._stack = contextlib.ExitStack()
        self._selector = Selector(
            config.rootpath,
            self._stack,
            wait=self._options.wait,
            lenient=self._options.allow_unavailable,
        )
        self._tallies: dict[str, Tally] = {}
        self._started = clock.now()
        self._written: Path | None = None
        self._trouble = ""
        self._stopped = False
        seed = self._options.seed
        self._seed = secrets.randbits(32) if seed is None else seed
        self._namespaces = leftovers.new_prefix()
        self.targets = self._select()
        """What is tested, in the order it was asked for."""
        parallel = self._wire is not None
        config.stash[RUN] = Run(
            self._namespaces,
            parallel=parallel,
            seed=self._seed,
            folder=self._options.folder,
            scale=self._options.scale if self._wire is None else self._wire["scale"],
        )
        config.pluginmanager.register(fixtures, _FIXTURES)
        config.pluginmanager.register(Judge(self._options, parallel=parallel), _JUDGE)

    def _select(self) -> list[Target]:
        if self._wire is not None:
            self._namespaces = f"{self._wire['namespaces']}-{secrets.token_hex(2)}"
            self._seed = self._wire["seed"]
            return [Target.from_wire(wire) for wire in self._wire["targets"]]
        values = self._options.backends or ["memory"]
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
        if self._options.backends:
            return []
        return ["no --backend was given: only memory is tested", *self._headlines()]

    def _headlines(self) -> Iterator[str]:
        yield f"conformance: contract {CONTRACT}, --seed={self._seed}"
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
        """Note each test's clauses in its reports; keep those that were asked for."""
        kept: list[pytest.Item] = []
        for item in items:
            ids = clause_ids(item)
            if ids:
                item.user_properties += [("clause", clause_id) for clause_id in ids]
                item.user_properties.append(("backend", target_of(item).label))
                _give_seed(item, self._seed)
            if not ids or self._options.clauses.intersection(ids):
                kept.append(item)
        self._note_missing(items)
        if len(kept) < len(items):
            config.hook.pytest_deselected(items=[item for item in items if item not in kept])
            items[:] = kept

    def _note_missing(self, items: Iterable[pytest.Item]) -> None:
        """Remember that only a part of the suite was collected, or refuse to certify for it."""
        collected = {item.path for item in items}
        missing = sorted(path.name for path in SUITE.glob("test_*.py") if path not in collected)
        if missing and self._options.certify:
            raise pytest.UsageError(
                f"--certify tests everything, and {', '.join(missing)} was not collected: "
                "run it with --pyargs upshot_conformance and nothing else"
            )
        if missing:
            filters = [*self._options.filters, f"{len(missing)} files that were not collected"]
            self._options = replace(self._options, filters=filters)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker what to test."""
        wires = [target.to_wire() for target in self.targets]
        node.workerinput[WIRE] = {
            "targets": wires,
            "namespaces": self._namespaces,
            "seed": self._seed,
            "scale": self._options.scale * _CROWDED,
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Learn from an xdist worker how fast it found the services to be."""
        measured = getattr(node, "workeroutput", {}).get(WIRE, {})
        timings = {label: Timing(**knobs) for label, knobs in measured.items()}
        self._config.stash[RUN].timings.update(timings)

    # -- what came out ------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a report to its backend's tally."""
        for name, value in report.user_properties:
            if name == "backend":
                label = str(value)
                self._tallies.setdefault(label, Tally(label, self._options)).add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run red that proved nothing about a backend, or less than was asked for."""
        if self._wire is not None:
            timings = self._config.stash[RUN].timings
            self._config.workeroutput[WIRE] = {  # type: ignore[attr-defined]  # xdist's
                label: asdict(timing) for label, timing in timings.items()
            }
        red = any(tally.is_red for tally in self._tallies.values())
        untested = bool(self._selector.unavailable) and not self._options.allow_unavailable
        if session.exitstatus == pytest.ExitCode.OK and (red or untested):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self._stopped = session.exitstatus not in ended or bool(
            session.shouldstop or session.shouldfail
        )
        if self._options.folder and self._wire is None and self._tallies:
            self._write_report(self._options.folder, session)

    def _write_report(self, folder: Path, session: pytest.Session) -> None:
        waivers = self._options.waivers
        run = self._config.stash[RUN]
        facts = evidence.run_facts(
            self._options,
            run,
            started=self._started,
            complete=not self._stopped,
            waived={waiver.clause: f"{waiver.kind}: {waiver.reason}" for waiver in waivers},
            untested=self._selector.unavailable,
        )
        backends = evidence.backend_facts(self.targets, run)
        try:
            report.write(folder, facts, backends, self._tallies.values())
        except report.ReportError as exc:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            self._trouble = str(exc)
        else:
            self._written = folder / "report.html"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a table and a verdict per backend, and all verdicts once more if there are many."""
        for tally in self._tallies.values():
            terminalreporter.section(f"conformance of {tally.label}, contract {CONTRACT}")
            for line in tally.lines():
                terminalreporter.write_line(line)
        if len(self._tallies) > 1:
            terminalreporter.section("verdicts")
            width = max(map(len, self._tallies))
            for label, tally in self._tallies.items():
                terminalreporter.write_line(f"{label:{width}}  {': '.join(tally.verdict())}")
        if self._stopped:
            terminalreporter.write_line("the run was stopped before its last test", red=True)
        if self._written:
            terminalreporter.write_line(f"report: {self._written}")
        if self._trouble:
            terminalreporter.write_line(self._trouble, red=True)
        for scheme, reason in self._selector.unavailable.items():
            terminalreporter.write_line(f"NOT TESTED: {scheme}: {reason}")

    def pytest_unconfigure(self) -> None:
        """Remove what a crashed worker may have left, and end the private services."""
        if self._wire is None and self._tallies and not self._options.keep:
            for target in self.targets:
                leftovers.remove(target, self._namespaces)
        self._stack.close()


def _give_seed(item: pytest.Item, seed: int) -> None:
    """Make hypothesis draw the same examples in every run with this seed."""
    test = item.obj if isinstance(item, pytest.Function) else None
    if test is not None and hypothesis.is_hypothesis_test(test):
        hypothesis.seed(seed)(test)


def _declared(capabilities: Capabilities) -> Iterable[str]:
    for field in fields(capabilities):
        value = getattr(capabilities, field.name)
        if value is True:
            yield field.name
        elif value is not False and value is not None:
            yield f"{field.name}={value}"
