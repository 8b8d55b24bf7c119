"""What the tests that run over every service share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from upshot import App
from upshot.cli import main
from upshot_conformance.harness import Harness
from upshot_conformance.resources import open_descriptors

from .patience import PATIENCE, comes_to
from .places import COMMAND, WITH_SCAN, Command, Place, opened
from .services import SERVICES, Service

AppOpener = Callable[..., App]


@pytest.fixture(params=SERVICES, ids=[service.name for service in SERVICES])
def service(request: pytest.FixtureRequest) -> Service:
    """Each service in turn."""
    chosen: Service = request.param
    return chosen


@pytest.fixture
def backend_url(service: Service, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the session's service is; no test stops it."""
    return service.find(request, tmp_path)


@pytest.fixture
def all_closed(backend_url: str) -> Iterator[None]:
    """See to it that the test leaves no descriptor and no thread behind, nor do its fixtures."""
    descriptors, threads = len(open_descriptors()), set(threading.enumerate())
    yield
    comes_to(lambda: set(threading.enumerate()) - threads, set[threading.Thread]())
    comes_to(lambda: len(open_descriptors()) <= descriptors, True)


@pytest.fixture
def harness(all_closed: None, service: Service, backend_url: str) -> Iterator[Harness]:
    """Looks into that service behind upshot's back."""
    with closing(service.harness(backend_url)) as opened:
        yield opened


@pytest.fixture
def open_app() -> Iterator[AppOpener]:
    """Open apps in one namespace of the test's own, over one broker in memory unless named.

    Each has connections of its own, as an app in another process would.
    """
    name = uuid.uuid4().hex[:8]
    usual: dict[str, Any] = {
        "broker": f"memory://{name}",
        "namespace": f"test-{name}",
        "no_worker_warning": None,
        "operation_timeout": PATIENCE / 2,  # a busy machine is no outage
    }
    with ExitStack() as stack:

        def opened(backend: str, **settings: Any) -> App:
            return stack.enter_context(App(backend=backend, **(usual | settings)))

        yield opened


@pytest.fixture
def results(tmp_path: Path) -> Command:
    """Runs `upshot results` in an empty folder."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("UPSHOT_")}
    clean.pop("COLUMNS", None)

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        given = more.pop("given", "")
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=clean | more,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        print(done.stdout, done.stderr, sep="\n")  # where passwords are looked for
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs `upshot results` in this process and an empty folder: a tenth of the time."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "UPSHOT_APP", "UPSHOT_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as changed:
            for name, value in more.items():
                changed.setenv(name, value)
            changed.setattr(sys, "argv", ["upshot", "results", *arguments])
            capsys.readouterr()
            code = main()
            printed, said = capsys.readouterr()
        print(printed, said, sep="\n")  # where passwords are looked for
        return subprocess.CompletedProcess(arguments, code, printed, said)

    return run


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An SQLite file."""
    yield from opened(f"sqlite:///{tmp_path}/results.db")


@pytest.fixture(params=WITH_SCAN, ids=[service.name for service in WITH_SCAN])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A namespace of its own on each service that is known to differ from the others."""
    yield from opened(request.param.find(request, tmp_path))
