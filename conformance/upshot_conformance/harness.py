"""How the suite looks at a service from outside, without trusting the backend under test.

Whoever writes a backend writes one `Harness` beside it, names it in the entry-point group
`upshot.conformance` (name = URL scheme) or in the backend's class attribute `conformance_harness`
(the class, or `"module:Class"`), and never touches a test. Without one, what only a harness can
tell stays unproven, and the verdict is at best *partial*.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Final

from upshot.errors import UpshotError
from upshot.url import Url

__all__ = ["HARNESSES", "CannotStartError", "Harness", "NotApplicableError", "UnavailableError"]

_NOTHING_BETWEEN: Final = "nothing lies between the client and the service"


HARNESSES: Final = "upshot.conformance"
"""The entry-point group of harnesses. A name is a URL scheme, or what `--backend` takes to start
one kind of a service that has several, such as `mongo-standalone`."""


class UnavailableError(UpshotError):
    """This harness cannot tell; the test that asked is reported as unavailable, never passed."""


class NotApplicableError(UpshotError):
    """What a test is about does not exist on this kind of service; the message says why.

    Unlike what is unavailable, it leaves nothing unproven.
    """


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

    over_network: ClassVar[bool] = True
    """Clients reach the service by TCP, at the hosts and ports of its URL, so that a test can put
    a proxy in between. False for files and memory, where there is nothing to cut."""

    default_port: ClassVar[int] = 0
    """Where the service is if its URL has a host without a port; 0 if nothing is usual."""

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

    # -- faults of the network, which a proxy makes -------------------------------------------

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Return host and port of every server that clients connect to.

        First come those of the URL, in its order; then those that the service itself names to its
        clients, as a cluster does. Where clients choose a record's server by the servers' names, it
        is one server of those: proxies have other names.

        Raises:
            NotApplicableError: clients do not reach the service by TCP.
            UnavailableError: the harness cannot tell.
        """
        if not self.over_network:
            raise NotApplicableError(_NOTHING_BETWEEN)
        found = [(host, port or self.default_port) for host, port in self.url.hosts]
        if not found or not all(port for _, port in found):
            raise UnavailableError(f"the URL {self.url} does not say which host and port to use")
        return found

    def renaming(
        self, proxies: Mapping[tuple[str, int], tuple[str, int]]
    ) -> Callable[[bytes], bytes] | None:
        """Return what puts proxies in place of servers where the service names them to clients.

        It is called with each piece of what the service says, as it comes from the network, and
        returns what the client is to hear. None, for a service that names none of its servers.

        Args:
            proxies: the address of the proxy of each of `addresses`.

        Raises:
            UnavailableError: it cannot be done.
        """
        return None

    # -- faults; asked for with --disruptive, and only of a service that `start` started ----------

    def crash(self) -> None:
        """End the service at once, as a power failure would; return when it is down.

        Raises:
            UnavailableError: this harness does not control the service.
            NotApplicableError: there is no service that could end before its clients.
        """
        raise self._uncontrolled("cannot end the service")

    def recover(self) -> None:
        """Start the service again after `crash`; return when it answers at the same URL.

        The harness itself works again afterwards. Raises as `crash`.
        """
        raise self._uncontrolled("cannot start the service again")

    def freeze(self) -> None:
        """Let the service answer nobody until `thaw`, all connections open; else as `crash`."""
        raise self._uncontrolled("cannot stop the service for a while")

    def thaw(self) -> None:
        """Let a frozen service go on; else as `crash`."""
        raise self._uncontrolled("cannot let the service go on")

    def _uncontrolled(self, what: str) -> Exception:
        if not self.over_network:
            return NotApplicableError(_NOTHING_BETWEEN)
        return UnavailableError(f"the {self.scheme} harness {what}")

    def writes_blocked(self) -> AbstractContextManager[None]:
        """Let no write succeed while the context is entered; reading may go on.

        For services that are not reached by TCP, where the suite cuts no line: hold the lock that
        writers need, or take the right to write away.

        Raises:
            UnavailableError: this harness cannot do it.
            NotApplicableError: nothing can keep a write from succeeding.
        """
        if self.over_network:
            raise NotApplicableError("the line to the service is cut instead")
        raise UnavailableError(f"the {self.scheme} harness cannot keep writes from succeeding")

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Give back what the harness has open; idempotent."""
