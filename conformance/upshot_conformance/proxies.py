"""Proxies before every server of a service, with one set of faults for all of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Final, Self, final

from upshot.url import Url
from upshot_conformance.harness import Harness, UnavailableError
from upshot_conformance.proxy import Address, Proxy

__all__ = ["Proxies", "readdressed"]

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+._-]*(?:@[A-Za-z0-9][A-Za-z0-9._-]*)?://"
_HOSTS: Final = re.compile(
    rf"(?P<start>(?:^|;){_SCHEME}(?:[^/?]*@)?)(?P<hosts>[^/?]*?)(?=[/?]|;{_SCHEME}|$)"
)
"""In one URL, or each of a fail-over list: what comes before the hosts, and those."""


@final
class Proxies:
    """One `Proxy` for each server that clients connect to. Use it as a context manager.

    The faults are those of `Proxy`; each is in effect at all of them when its method returns.

    Args:
        text: the URL of the service.
        harness: says which servers that are.

    Raises:
        NotApplicableError: there is nothing between the service and its clients.
        UnavailableError: the harness cannot tell, or no proxy can pass for a server.
    """

    def __init__(self, text: str, harness: Harness) -> None:
        self._proxies = {address: Proxy(*address) for address in harness.addresses()}
        self._harness = harness
        self._direct = self._through = text
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for proxy in self.each:
                stack.enter_context(proxy)
            addresses = {there: proxy.address for there, proxy in self._proxies.items()}
            self._direct = readdressed(self._direct, list(addresses.keys()))
            self._through = readdressed(self._direct, list(addresses.values()))
            translate = self._harness.renaming(addresses)
            for proxy in self.each:
                proxy.translate = translate
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def each(self) -> list[Proxy]:
        """The proxies, in the order of the servers."""
        return list(self._proxies.values())

    @property
    def text(self) -> str:
        """The URL of the service through the proxies, with its password."""
        return self._through

    @property
    def direct(self) -> str:
        """The URL of the same servers without proxies, with its password.

        It is not always the one that was given: where clients choose a record's server by the
        servers' names, both URLs have one host.
        """
        return self._direct

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return sum(proxy.connections for proxy in self.each)

    @property
    def turns(self) -> int:
        """How often a client began to speak when the service had; see `Proxy.turns`."""
        return sum(proxy.turns for proxy in self.each)

    @property
    def dropped(self) -> int:
        """How many pieces of answers were thrown away."""
        return sum(proxy.dropped for proxy in self.each)

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._all(Proxy.cut)

    def reset(self) -> None:
        """Reset all connections; new ones work."""
        self._all(Proxy.reset)

    def delay(self, seconds: float) -> None:
        """Let every piece of an answer come this much later; a connection takes some of them."""
        self._all(lambda proxy: proxy.delay(seconds))

    def trickle(self, seconds: float) -> None:
        """Let every answer come a byte at a time, with so many seconds before each byte."""
        self._all(lambda proxy: proxy.trickle(seconds))

    def drop_replies(self, *, cut: bool = False) -> None:
        """Throw away what the service says, and, if so asked, `cut` each connection then."""
        self._all(lambda proxy: proxy.drop_replies(cut=cut))

    def lose_answer(self, *, after: int = 0) -> None:
        """Throw away one piece of an answer of each server; see `Proxy.lose_answer`."""
        self._all(lambda proxy: proxy.lose_answer(after=after))

    def cut_short(self, *, after: int) -> None:
        """End an answer of each server too early; see `Proxy.cut_short`."""
        self._all(lambda proxy: proxy.cut_short(after=after))

    def half_close(self) -> None:
        """Tell clients on all connections that the service has said its last; it still listens."""
        self._all(Proxy.half_close)

    def hold(self) -> None:
        """Let nothing pass, and keep it; connections stay open, and new ones can be made."""
        self._all(Proxy.hold)

    def heal(self) -> None:
        """Let everything pass again; see `Proxy.heal`."""
        self._all(Proxy.heal)

    def _all(self, action: Callable[[Proxy], None]) -> None:
        for proxy in self.each:
            action(proxy)


def readdressed(text: str, addresses: Sequence[Address]) -> str:
    """Return a URL with other hosts, and everything else as it was.

    Args:
        text: a URL, or the URLs of a fail-over list.
        addresses: the new hosts with their ports; those that the URL has no place for are left
            out, and if they are too few, so are hosts. A URL without a host gets the first.

    Raises:
        UnavailableError: the URL is of a form that this cannot be done with.
    """
    new = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]
    before = Url.parse(text)
    wanted = new[: max(1, len(before.hosts))]
    left = list(wanted)

    def put(found: re.Match[str]) -> str:
        count = max(1, len(re.split("[,;]", found["hosts"])))
        taken, left[:count] = left[:count], []
        return found["start"] + ",".join(taken)

    changed = _HOSTS.sub(put, text)
    after = Url.parse(changed)
    same = all(
        getattr(before, name) == getattr(after, name)
        for name in ("scheme", "distribution", "username", "password", "path", "query", "options")
    )
    if not same or after.hosts != tuple(addresses)[: len(wanted)]:
        raise UnavailableError(f"no other hosts can be put into the URL {before}")
    return changed
