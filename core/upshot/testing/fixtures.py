"""The fixtures that `pytest_plugins = ["upshot.testing"]` brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol, final

import pytest

from upshot.app import App
from upshot.errors import ConfigError
from upshot.testing.memory import in_memory
from upshot.testing.releases import require_released
from upshot.testing.travelling import Clock

__all__ = ["Apps", "Start", "upshot_app", "upshot_clock", "upshot_released", "upshot_worker"]


class Start(Protocol):
    """What the fixture `upshot_worker` is."""

    def __call__(self, app: App, *, threads: int = 2, **settings: Any) -> App: ...


@final
class Apps:
    """What the fixture `upshot_app` is: it takes apps to memory until the test is over."""

    def __init__(self, stack: ExitStack) -> None:
        self.taken: list[App] = []
        """Every app that was."""
        self._stack = stack

    def __call__(self, app: App, **settings: Any) -> App:
        """Keep the app's messages and results in memory from now on; return the app.

        Args:
            app: whose tasks are tested; to do this twice is harmless.
            settings: others that count until the test is over.

        Raises:
            ConfigError: a setting is unknown or wrong, or comes too late: the app was taken before.
        """
        if any(each is app for each in self.taken):
            if settings:
                raise ConfigError("this app is in memory already: give settings the first time")
            return app
        self._stack.enter_context(in_memory(app, **settings))
        self.taken.append(app)
        return app


@pytest.fixture
def upshot_clock() -> Iterator[Clock]:
    """The clock that upshot reads in this test: `upshot_clock.travel(3600)`."""
    with Clock() as clock:
        yield clock


@pytest.fixture
def upshot_app(upshot_clock: Clock) -> Iterator[Apps]:
    """Takes an app to memory until the test is over: `upshot_app(app)`."""
    # The clock comes first and goes last: what an app has open must not see it going back.
    with ExitStack() as stack:
        yield Apps(stack)


@pytest.fixture
def upshot_worker(upshot_app: Apps) -> Iterator[Start]:
    """Takes an app to memory and runs a worker for it in threads: `upshot_worker(app)`."""
    with ExitStack() as stack:

        def start(app: App, *, threads: int = 2, **settings: Any) -> App:
            upshot_app(app, **settings)
            return stack.enter_context(app.running(threads=threads))

        yield start


@pytest.fixture
def upshot_released(upshot_app: Apps) -> Iterator[None]:
    """Fails the test if an app that it took to memory has results that nobody released."""
    yield
    for app in upshot_app.taken:
        require_released(app)
