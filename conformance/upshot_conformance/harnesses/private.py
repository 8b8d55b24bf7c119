"""What harnesses have in common whose service can be started here, ended and frozen."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Generator
from typing import Final, Protocol

from upshot.url import Url
from upshot_conformance.harness import CannotStartError, Harness, UnavailableError

__all__ = ["PrivateHarness", "PrivateService", "running"]


class PrivateService(Protocol):
    """A private server, or an ensemble of them, as `upshot_conformance.servers` has them."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


_RUNNING: Final[dict[str, PrivateService]] = {}
"""What `start` has started in this process and not yet stopped, by URL as drivers get it."""


def running(url: str) -> PrivateService | None:
    """Return the service that was started in this process and has this URL; None for another."""
    return _RUNNING.get(Url.parse(url).driver_url())


class PrivateHarness(Harness):
    """Starts the service with `make_service`; ends, restarts and freezes what it started.

    A subclass says how to make the service, and connects to it in `connect`.
    """

    def __init__(self, url: Url) -> None:
        super().__init__(url)
        self.connect()

    @classmethod
    @abc.abstractmethod
    def make_service(cls) -> PrivateService:
        """Return a service that is not started yet."""

    def connect(self) -> None:
        """Open what the harness itself needs; called once more after `close`, by `recover`."""

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Generator[str]:
        """Start a private, empty, throw-away service; the context's value is its URL."""
        from upshot_conformance.servers import ServerError  # only who starts one

        service = cls.make_service()
        try:
            service.start()
        except ServerError as exc:
            raise CannotStartError(str(exc)) from exc
        key = Url.parse(service.url).driver_url()
        _RUNNING[key] = service
        try:
            yield service.url
        finally:
            del _RUNNING[key]
            service.stop()

    @property
    def service(self) -> PrivateService:
        """The service behind this harness's URL.

        Raises:
            UnavailableError: it was not started in this process.
        """
        found = running(self.url.driver_url())
        if found is None:
            raise UnavailableError("only a service that was started for this run is disturbed")
        return found

    def crash(self) -> None:
        self.service.kill()

    def recover(self) -> None:
        self.service.restart()
        self.close()
        self.connect()

    def freeze(self) -> None:
        self.service.pause()

    def thaw(self) -> None:
        self.service.resume()
