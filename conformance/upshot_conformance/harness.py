"""How the suite looks at a service from outside, without trusting the backend under test.

Whoever writes a backend writes one `Harness` beside it, names it in the entry-point group
`upshot.conformance` (name = URL scheme) or in the backend's class attribute `conformance_harness`
(the class, or `"module:Class"`), and never touches a test. Without one, what only a harness can
tell stays unproven, and the verdict is at best *partial*.
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from typing import ClassVar

from upshot.errors import UpshotError
from upshot.url import Url

__all__ = ["CannotStartError", "Harness", "UnavailableError"]


class UnavailableError(UpshotError):
    """This harness cannot tell; the test that asked is reported as unavailable, never passed."""


class CannotStartError(UpshotError):
    """No private service can be started here; the message says what to install or to pass."""


class Harness(abc.ABC):
    """Inspects one service, through a connection of its own and nothing of the backend.

    The suite calls it from one thread. Names of server objects are whatever the harness chooses,
    as long as one object always has the same name.

    Args:
        url: the service, as the backend gets it.
    """

    scheme: ClassVar[str]
    """The URL scheme that this harness is for."""

    def __init__(self, url: Url) -> None:
        self.url = url

    @classmethod
    def start(cls) -> AbstractContextManager[str]:
        """Start a private, empty, throw-away service; the context's value is its URL.

        Raises:
            CannotStartError: it cannot be started here, now or ever.
        """
        raise CannotStartError(
            f"no private {cls.scheme} service can be started here: give the URL of one, "
            f"as --backend={cls.scheme}://host"
        )

    @abc.abstractmethod
    def raw_objects(self, namespace: str) -> set[str]:
        """Return the names of all server objects that mention `namespace`.

        Objects are whatever the service stores: keys, rows, documents, queues. They are to be
        found by looking for the namespace anywhere in them, not by computing the backend's keys.
        `""` lists everything. A service that does not list a thing that has expired need not.
        """

    @abc.abstractmethod
    def purge(self, namespace: str) -> None:
        """Remove all server objects that mention `namespace`, which is never empty."""

    @abc.abstractmethod
    def server_version(self) -> str:
        """Return what the service says it is, such as `"Redis 7.2.4"`."""

    def read_raw(self, name: str) -> bytes:
        """Return everything that a server object holds, in any form that shows each change.

        Raises:
            UnavailableError: the service cannot tell.
        """
        raise UnavailableError(f"the {self.scheme} harness cannot read server objects")

    def ttl(self, name: str) -> float | None:
        """Return the seconds until the service drops or hides an object; None for never.

        Raises:
            UnavailableError: the service cannot tell.
        """
        raise UnavailableError(f"the {self.scheme} harness cannot tell when an object expires")

    def subscriptions(self, namespace: str) -> set[str]:
        """Return the names of subscriptions that mention `namespace`, as the service sees them.

        Raises:
            UnavailableError: the service cannot tell.
        """
        raise UnavailableError(f"the {self.scheme} harness cannot list subscriptions")

    def connections(self) -> int:
        """Return how many connections the service has, this harness's own not counted.

        Raises:
            UnavailableError: the service cannot tell.
        """
        raise UnavailableError(f"the {self.scheme} harness cannot count connections")

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Give back what the harness has open; idempotent."""
