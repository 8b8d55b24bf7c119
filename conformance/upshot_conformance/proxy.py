"""A TCP proxy in front of a service, with the faults of a network at command.

    with Proxy("127.0.0.1", 6379) as proxy:
        backend = app_backend(f"redis://127.0.0.1:{proxy.port}/0")
        proxy.cut()
        ...
        proxy.heal()

It knows nothing of what passes through, takes no part in TLS, and works for any service.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Self, final

from upshot import clock
from upshot_conformance.link import NEVER, Link, Pipe
from upshot_conformance.servers.ports import LOOPBACK, PortReservation

__all__ = ["Address", "Proxy"]

Address = tuple[str, int]
"""Host and port."""

_CHUNK: Final = 2**16  # bytes that are read at once
_PATIENCE: Final = 30.0  # seconds for a command to the proxy's thread, which is never busy so long


@final
class Proxy:
    """Listens on a free port of 127.0.0.1 and passes each connection on to a service.

    Use it as a context manager, or call `start()` and `close()`. A fault is in effect when its
    method returns, and lasts until the next one or `heal()`; methods may be called by any thread.
    All numbers count from the start, and only grow, except `connections`.

    Args:
        host, port: the service; looked up once, by `start()`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.service: Address = (host, port)
        self.accepted = 0
        """How many connections clients have made."""
        self.turns = 0
        """How often a client began to speak when the service had, or nobody: round trips, if the
        client waits for answers, and not more than those."""
        self.dropped = 0
        """How many pieces of answers were thrown away."""
        self.translate: Callable[[bytes], bytes] | None = None
        """What to make of each piece of what the service says; None passes it on as it is. Pieces
        are as they come from the network: a long message is in several. It raises nothing."""
        self._links: set[Link] = set()
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._stopping = False
        self._fault = _Fault()

    # -- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the service's name is unknown, or this system is out of ports or threads.
        """
        self._found = socket.getaddrinfo(*self.service, type=socket.SOCK_STREAM)
        self._reserved = PortReservation()
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._obey)
        self._become(_Fault())
        self._thread = threading.Thread(target=self._run, name="conformance-proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and listen no more; idempotent."""
        if self._thread is not None:
            self._order(self._stop)
            self._thread.join(_PATIENCE)
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1, the same until `close()`."""
        return self._reserved.number

    @property
    def address(self) -> Address:
        """Where clients find it."""
        return LOOPBACK, self.port

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._links)

    # -- faults ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._order(self._cut)

    def reset(self) -> None:
        """Reset all connections; new ones work."""
        self._order(self._reset_all)

    def delay(self, seconds: float) -> None:
        """Let every piece of an answer come this much later; a connection takes some of them."""
        self._order(partial(self._become, _Fault(delay=seconds)))

    def trickle(self, seconds: float) -> None:
        """Let every answer come a byte at a time, with so many seconds before each byte.

        What is worse than silence for a client that gives each read its whole timeout anew.
        """
        self._order(partial(self._become, _Fault(trickles=seconds)))

    def drop_replies(self, *, cut: bool = False) -> None:
        """Throw away what the service says, while it gets all that clients say.

        Args:
            cut: also reset a connection as soon as an answer to its client was thrown away.
        """
        self._order(partial(self._become, _Fault(drops=True, cuts=cut)))

    def lose_answer(self, *, after: int = 0) -> None:
        """Throw away one piece of an answer, reset its connection, and be healed by that.

        Args:
            after: how many pieces pass before it.
        """
        self._order(partial(self._become, _Fault(drops=True, cuts=True, spares=after, ends=True)))

    def cut_short(self, *, after: int) -> None:
        """End one answer too early, tell its client that the service has said its last, and be
        healed by that.

        Args:
            after: how many bytes of answers pass before it.
        """
        self._order(partial(self._become, _Fault(passes=after)))

    def half_close(self) -> None:
        """Tell clients on all connections that the service has said its last; it still listens."""
        self._order(self._half_close)

    def hold(self) -> None:
        """Let nothing pass, and keep it; connections stay open, and new ones can be made."""
        self._order(partial(self._become, _Fault(holds=True)))

    def heal(self) -> None:
        """Let everything pass again, what was held or delayed at once.

        Connections of which something was thrown away are reset: TCP loses nothing but an end.
        """
        self._order(self._heal)

    # -- the proxy's own thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for link in self._links:
                self._watch(link)
            for key, events in self._selector.select(self._until_due()):
                key.data(events)
        self._cut()
        self._selector.close()
        self._waker.close()
        self._woken.close()
        self._reserved.close()

    def _order(self, action: Callable[[], None]) -> None:
        """Have the proxy's thread do something, and return when it is done."""
        done: Future[None] = Future()
        self._orders.append((action, done))
        self._waker.send(b"!")
        done.result(_PATIENCE)

    def _obey(self, _: int) -> None:
        self._woken.recv(1)
        action, done = self._orders.popleft()
        try:
            action()
        except OSError as exc:
            done.set_exception(exc)
        else:
            done.set_result(None)

    def _stop(self) -> None:
        self._stopping = True

    def _become(self, fault: _Fault) -> None:
        self._fault = fault
        if self._listener is None:
            self._listener = socket.create_server(self.address, backlog=1024)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _cut(self) -> None:
        self._fault = _Fault()
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        self._reset_all()

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._end(link)

    def _half_close(self) -> None:
        self._become(_Fault())
        for link in list(self._links):
            link.spoiled = link.mute = True
            link.replies.put(b"", 0.0)
            self._flush(link, link.replies)

    def _heal(self) -> None:
        self._become(_Fault())
        for link in list(self._links):
            if link.spoiled:
                self._end(link)
            for pipe in (link.requests, link.replies):
                pipe.hurry()

    def _accept(self, _: int) -> None:
        if self._listener is None:  # cut since the selector saw the client
            return
        try:
            client = self._listener.accept()[0]
        except OSError:  # it has left already
            return
        self.accepted += 1
        family, address = self._found[0][0], self._found[0][-1]
        service = socket.socket(family, socket.SOCK_STREAM)
        link = Link(client, service)
        self._links.add(link)
        if service.connect_ex(address) not in (0, errno.EINPROGRESS):
            self._end(link)  # refused at once; else it is seen when the socket can be written to

    def _watch(self, link: Link) -> None:
        """Have the selector look for what a connection needs next."""
        now, wanted = clock.monotonic(), dict.fromkeys(link.watched, 0)
        if not link.connected:
            wanted[link.service] = selectors.EVENT_WRITE
        elif not self._fault.holds:
            for pipe in (link.requests, link.replies):
                wanted[pipe.source] |= selectors.EVENT_READ if pipe.is_hungry else 0
                wanted[pipe.sink] |= selectors.EVENT_WRITE if pipe.due <= now else 0
        for each, events in wanted.items():
            if events == link.watched[each]:
                continue
            if link.watched[each]:
                self._selector.unregister(each)
            if events:
                self._selector.register(each, events, partial(self._move, link, each))
            link.watched[each] = events

    def _until_due(self) -> float | None:
        """Return the seconds until something has waited long enough; None if nothing waits."""
        if self._fault.holds:
            return None
        due = min((link.replies.due for link in self._links), default=NEVER)
        return None if due == NEVER else max(0.0, due - clock.monotonic())

    def _move(self, link: Link, ready: socket.socket, events: int) -> None:
        """Read from a socket, or write to it."""
        if not link.connected and ready is link.service and link in self._links:
            link.connected = not ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not link.connected:
                self._end(link)
            return
        for pipe in (link.requests, link.replies):
            if events & selectors.EVENT_WRITE and pipe.sink is ready and link in self._links:
                self._flush(link, pipe)
            if events & selectors.EVENT_READ and pipe.source is ready and link in self._links:
                self._read(link, pipe)

    def _read(self, link: Link, pipe: Pipe) -> None:
        try:
            data = pipe.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:  # one side resets: so must the other
            self._end(link)
            return
        pipe.ended = not data
        if pipe is link.requests:
            self.turns += bool(data) and link.answered
            link.answered = link.answered and not data
            pipe.put(data, 0.0)
            return
        link.answered = True
        if self._fault.passes is not None and not link.mute:
            data = self._shortened(link, data, self._fault.passes)
        if link.mute or (data and self._is_lost()):
            self._drop(link)
        else:
            translated = self.translate(data) if self.translate and data else data
            if data and self._fault.trickles:
                pipe.drip(translated, self._fault.trickles)
            else:
                pipe.put(translated, clock.monotonic() + self._fault.delay)

    def _shortened(self, link: Link, data: bytes, passes: int) -> bytes:
        """Return the bytes that still pass; end what the service says on a link after the last."""
        if len(data) <= passes:
            self._fault = replace(self._fault, passes=passes - len(data))
            return data
        self._become(_Fault())
        link.mute = True
        if passes:
            link.replies.put(data[:passes], 0.0)
        link.replies.put(b"", 0.0)
        return b""

    def _is_lost(self) -> bool:
        fault = self._fault
        if fault.drops and fault.spares > 0:
            self._fault = replace(fault, spares=fault.spares - 1)
            return False
        return fault.drops

    def _drop(self, link: Link) -> None:
        self.dropped += 1
        link.spoiled = True
        if self._fault.cuts:
            self._end(link)
        if self._fault.ends:
            self._fault = _Fault()

    def _flush(self, link: Link, pipe: Pipe) -> None:
        try:
            pipe.flush()
        except BlockingIOError:
            return
        except OSError:
            self._end(link)
            return
        if link.requests.shut and link.replies.shut:
            self._end(link, reset=link.spoiled)

    def _end(self, link: Link, *, reset: bool = True) -> None:
        self._links.discard(link)
        for each, events in link.watched.items():
            if events:
                self._selector.unregister(each)
        link.close(reset=reset)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What happens to what passes; by default nothing."""

    holds: bool = False
    drops: bool = False
    cuts: bool = False
    spares: int = 0
    ends: bool = False
    delay: float = 0.0
    trickles: float = 0.0
    passes: int | None = None
