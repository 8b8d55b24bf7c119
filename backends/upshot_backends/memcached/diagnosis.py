"""What `upshot doctor` asks memcached servers: version, memory, what they evict, what they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from upshot import clock
from upshot.finding import Advice, Finding, Level, advice_for, clock_finding
from upshot_backends.memcached.connection import Server, Servers
from upshot_backends.memcached.wire import Wire, refusal

__all__ = ["advise", "diagnose"]

_OLDEST: Final = (1, 5, 3)  # `gat`
_ITEM: Final = 2**20  # bytes of an item, as `layout` has them
_WHOLE: Final = 1.0  # seconds: the server tells the time without fractions

_ADVICE: Final[Advice] = (
    (
        ("unauthenticated", "authentication"),
        (
            "start memcached without -Y and -S: its text protocol is used, without a password; "
            "keep others out by a firewall"
        ),
    ),
    (("option -i", "too large"), "start memcached with -I 1m, its default, or more"),
    (("closed the connection",), "correct the port; TLS is not spoken by upshot here"),
)


class _Told(NamedTuple):
    """What one server told.

    Attributes:
        stats, settings: the answers to `stats` and `stats settings`, by name.
        asked: when, on this machine's clock.
        doubt: half of the round trip, in seconds.
    """

    stats: Mapping[str, str]
    settings: Mapping[str, str]
    asked: float
    doubt: float


def diagnose(servers: Servers, timeout: float) -> list[Finding]:
    """Look at every server; what several have in common is said once."""
    until = clock.monotonic() + timeout
    findings: list[Finding] = []
    for server in servers.all:
        told = _ask(server, until)
        findings += _findings(server.name, told.stats, told.settings)
        if "time" in told.stats:
            # It counts seconds with a timer: half of one is the best guess at the rest.
            ahead = int(told.stats["time"]) + _WHOLE / 2 - told.asked - told.doubt
            findings.append(clock_finding(ahead, told.doubt + _WHOLE))
    return list(dict.fromkeys(findings))


def advise(said: str) -> str:
    """Return what to change where memcached, or pymemcache, said this; "" if unknown."""
    return advice_for(said, _ADVICE)


def _ask(server: Server, until: float) -> _Told:
    told: list[_Told] = []

    def talk(wire: Wire, _: list[bytes]) -> None:
        asked = clock.now()
        stats = _stats(wire, b"stats")
        doubt = (clock.now() - asked) / 2
        told.append(_Told(stats, _stats(wire, b"stats settings"), asked, doubt))

    server.run(talk, [], until)
    return told[0]


def _stats(wire: Wire, command: bytes) -> dict[str, str]:
    """Return what `stats` answers, by name."""
    wire.send([command + b"\r\n"])
    found: dict[str, str] = {}
    while True:
        (line,) = wire.answers(1)
        if line == b"END":
            return found
        words = line.decode(errors="replace").split(" ", 2)
        if words[0] != "STAT" or len(words) < 2:
            raise refusal(line)
        found[words[1]] = words[2] if len(words) == 3 else ""


def _findings(
    name: str, stats: Mapping[str, str], settings: Mapping[str, str]
) -> Iterator[Finding]:
    version = stats.get("version", "")
    known = tuple(int(part) for part in version.split(".") if part.isdigit())
    if known and known < _OLDEST:
        yield Finding(
            Level.PROBLEM, f"memcached {version}: too old", change="upgrade to 1.5.3 or newer"
        )
    else:
        yield Finding(Level.OK, f"memcached {version} at {name}")
    if settings.get("cas_enabled") == "no":
        yield Finding(
            Level.PROBLEM,
            f"{name} cannot compare and set",
            "of two writers of one record either might win",
            "start it without -C",
        )
    largest = int(settings.get("item_size_max") or _ITEM)
    if largest < _ITEM:
        yield Finding(
            Level.PROBLEM,
            f"{name} takes items of {largest} bytes only",
            "longer results are refused",
            "start it with -I 1m, its default, or more",
        )
    yield _memory(name, stats, settings)


def _memory(name: str, stats: Mapping[str, str], settings: Mapping[str, str]) -> Finding:
    limit = int(stats.get("limit_maxbytes") or 0) // 2**20
    evicted = int(stats.get("evictions") or 0)
    if settings.get("evictions") == "off":
        return Finding(
            Level.NOTE,
            f"{name} refuses to store when its {limit} MiB are full (-M), and evicts nothing",
            change="give it more memory (-m) in time, or let records expire sooner: result_expires",
        )
    if evicted:
        return Finding(
            Level.WARNING,
            f"{name} has evicted {evicted} items since it was started; it has {limit} MiB",
            "results were lost before their time, and who waits for one waits in vain",
            "give it more memory (-m), or keep results where nothing is evicted, such as Redis",
        )
    return Finding(
        Level.NOTE,
        f"{name} throws away results that were not read for long when its {limit} MiB are full",
        "give every wait a timeout: who waits for such a result waits in vain",
        "give it more memory (-m), or keep results where nothing is evicted, such as Redis",
    )
