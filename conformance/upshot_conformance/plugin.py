"""The pytest plugin: `pytest -p upshot_conformance.plugin --pyargs upshot_conformance --backend=…`.

It is no `pytest11` entry point, so that installing upshot changes nobody's pytest. Until a backend
is chosen or a test of the suite is collected, it only knows its options and marks; everything else
is in `upshot_conformance.session`, which is imported then.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from upshot_conformance.session import SuiteSession

__all__ = ["WIRE"]

WIRE: Final = "upshot_conformance"
"""Under which key an xdist controller tells its workers what to test."""

_HERE: Final = Path(__file__).parent
_SESSION: Final = "upshot-conformance-session"
_OPTIONS: Final = ("--backend", "--result-backend")

# Before they are imported, so that what fails in them shows its values to third parties too.
pytest.register_assert_rewrite(
    *(f"upshot_conformance.{name}" for name in ("elsewhere", "expect", "records", "waits"))
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; if another plugin owns `--backend`, only `--result-backend`."""
    group = parser.getgroup("upshot conformance")
    group.addoption(
        "--clause",
        action="append",
        dest="upshot_conformance_clauses",
        metavar="ID",
        help="run only tests of this clause of the contract, such as ST-2, or group, such as ST",
    )
    try:
        _add_backend_option(group, *_OPTIONS)
    except (ValueError, argparse.ArgumentError):
        _add_backend_option(group, _OPTIONS[1])


def _add_backend_option(group: pytest.OptionGroup, *names: str) -> None:
    group.addoption(
        *names,
        action="append",
        dest="upshot_conformance_backends",
        metavar="NAME_OR_URL",
        help="result backend to test: a URL, an alias, an installed scheme such as 'sqlite', or "
        "'all'; may be given several times (default: memory)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "clause(*ids): the clauses of the contract that it checks")
    config.addinivalue_line("markers", "needs(capability): runs where this is declared")
    config.addinivalue_line("markers", "lacks(capability): runs where this is not declared")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Choose and reach the backends before anything is collected."""
    config = session.config
    chosen = ("upshot_conformance_backends", "upshot_conformance_clauses")
    if any(map(config.getoption, chosen)) or WIRE in getattr(config, "workerinput", {}):
        _activate(config)
    elif config.pluginmanager.has_plugin("dsession"):
        config.pluginmanager.register(_Lookout(config))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Wake the suite up when one of its modules is collected."""
    if module_path.parent == _HERE:
        _activate(parent.config)


class _Lookout:
    """Wakes the suite up in an xdist controller, which collects nothing itself."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if any(name == "clause" for name, _ in report.user_properties):
            self._config.pluginmanager.unregister(self)
            _activate(self._config).pytest_runtest_logreport(report)


def _activate(config: pytest.Config) -> SuiteSession:
    from upshot_conformance.session import SuiteSession  # not before the suite is used

    active = config.pluginmanager.get_plugin(_SESSION)
    if not isinstance(active, SuiteSession):
        active = SuiteSession(config)
        config.pluginmanager.register(active, _SESSION)
    return active
