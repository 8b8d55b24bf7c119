"""The pytest plugin: `pytest -p upshot_conformance.plugin --pyargs upshot_conformance --backend=…`.

It is no `pytest11` entry point, so that installing upshot changes nobody's pytest. Until a backend
is chosen or a test of the suite is collected, it only knows its options and marks; everything else
is in `upshot_conformance.session`, which is imported then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from upshot_conformance.session import SuiteSession

__all__ = ["DEST", "SUITE", "WIRE"]

WIRE: Final = "upshot_conformance"
"""Under which key an xdist controller tells its workers what to test."""

DEST: Final = "upshot_conformance_"
"""What the names of our options begin with in `pytest.Config`."""

SUITE: Final = Path(__file__).parent / "suite"
"""The folder of the tests."""

_SESSION: Final = "upshot-conformance-session"
_BACKEND: Final = ("--backend", "--result-backend")
_SWITCH: Final[Mapping[str, Any]] = {"action": "store_true"}


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


_OPTIONS: Final[Mapping[str, tuple[str, Mapping[str, Any], str]]] = {
    "clauses": (
        "--clause", {"action": "append", "metavar": "ID"},
        "test only this clause of the contract, such as ST-2, or group, such as ST",
    ),
    "level": (
        "--level", {"choices": ("core", "extended", "all")},
        "test only core clauses, or those of declared capabilities too (default: all)",
    ),
    "strict": (
        "--strict-capabilities", _SWITCH,
        "a capability that works although undeclared turns the run red",
    ),
    "disruptive": (
        "--disruptive", _SWITCH,
        "also end, freeze and restart the service, if it was started for this run",
    ),
    "certify": (
        "--certify", _SWITCH,
        "test everything, disruptive and strict; red unless every clause is proven",
    ),
    "waivers": (
        "--known-failures", {"type": _path, "metavar": "FILE"},
        "waivers of clauses that are known to be broken; any other failure stays red",
    ),
    "report": (
        "--conformance-report", {"type": _path, "metavar": "DIR"},
        "write what was found to files in this folder",
    ),
    "seed": (
        "--seed", {"type": int, "metavar": "N"},
        "draw random values as the run did whose header shows this seed",
    ),
    "scale": (
        "--timing-scale", {"type": float, "metavar": "FACTOR", "default": 1.0},
        "widen all time bounds by this factor; the report shows it",
    ),
    "wait": (
        "--backend-wait", {"type": float, "metavar": "SECONDS", "default": 10.0},
        "how long a service may take until it answers the first request (default: 10)",
    ),
    "allow_unavailable": (
        "--allow-unavailable", _SWITCH,
        "what --backend=all cannot start is named, and does not turn the run red",
    ),
    "keep": ("--keep", _SWITCH, "leave what the suite stored in the service"),
    "listing": ("--backend-list", _SWITCH, "list what --backend takes here, and test nothing"),
}  # fmt: skip
"""Our options: name, flag, what argparse needs to know, help."""

# Before they are imported, so that what fails in them shows its values to third parties too.
pytest.register_assert_rewrite("upshot_conformance.suite", "upshot_conformance.records")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; if another plugin owns `--backend`, only `--result-backend`."""
    group = parser.getgroup("upshot conformance")
    for name, (flag, how, text) in _OPTIONS.items():
        group.addoption(flag, dest=DEST + name, help=text, **how)
    try:
        _add_backend_option(group, *_BACKEND)
    except (ValueError, argparse.ArgumentError):
        _add_backend_option(group, _BACKEND[1])


def _add_backend_option(group: pytest.OptionGroup, *names: str) -> None:
    group.addoption(
        *names,
        action="append",
        dest=DEST + "backends",
        metavar="NAME_OR_URL",
        help="result backend to test: a URL, an alias, an installed scheme such as 'sqlite', or "
        "'all'; may be given several times (default: memory)",
    )


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Answer `--backend-list` without running anything."""
    if not config.getoption(DEST + "listing"):
        return None
    from upshot_conformance.listing import backend_list  # not before the suite is used

    sys.stdout.write(backend_list(config.rootpath))
    return pytest.ExitCode.OK


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "clause(*ids): the clauses of the contract that it checks")
    config.addinivalue_line("markers", "needs(capability): runs where this is declared")
    config.addinivalue_line("markers", "disruptive: it ends, freezes or restarts the service")
    if not config.pluginmanager.hasplugin("xdist"):
        config.addinivalue_line("markers", "xdist_group(name): what pytest-xdist runs together")
    config.addinivalue_line("markers", "lacks(capability): runs where this is not declared")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Choose and reach the backends before anything is collected."""
    config = session.config
    chosen = map(config.getoption, (DEST + "backends", DEST + "clauses", DEST + "certify"))
    if any(chosen) or WIRE in getattr(config, "workerinput", {}):
        _activate(config)
    elif config.pluginmanager.has_plugin("dsession"):
        config.pluginmanager.register(_Lookout(config))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Wake the suite up when one of its modules is collected."""
    if module_path.parent == SUITE:
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
