"""What the tests that run over every service share."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from upshot import App
from upshot_conformance.harness import Harness
from upshot_conformance.resources import open_descriptors

from .patience import PATIENCE, comes_to
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
