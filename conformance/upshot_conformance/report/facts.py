"""What a report says about a run and its backends, besides what the tests found out.

Both classes hold plain data only, as it stands in the header of `results.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from upshot.backend import Capabilities

__all__ = ["BackendFacts", "Declared", "RunFacts", "Waivers", "declared"]

Declared = bool | float | str | None
"""The value of a capability; a number that JSON does not have is written as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """What is known about one backend before its first test.

    Attributes:
        label: how reports call it: `redis`, and `redis-2` for a second one.
        url: where it is, its scheme first; as given on the way into a report, masked inside it.
        private: the service was started for this run and ended with it.
        distribution: what it comes from, with its version, such as `"upshot 0.1.0"`.
        contract: the version of the contract that it declares.
        drivers: versions of the distributions that it talks through, by name; {} if unknown.
        server: what the service says it is, such as `"Redis 7.2.4"`; "" without a harness.
        capabilities: what it can do, as declared by the class and narrowed by connecting.
        narrowed: names of the capabilities that only connecting showed to be less.
        round_trip: median seconds of one request; None if it was not measured.
        jitter: seconds by which this machine may be late; None if it was not measured.
        scale: what the bounds of this run were multiplied by; 1 for not at all.
    """

    label: str
    url: str = field(repr=False)
    private: bool = False
    distribution: str = ""
    contract: str = ""
    drivers: Mapping[str, str] = field(default_factory=dict[str, str])
    server: str = ""
    capabilities: Mapping[str, Declared] = field(default_factory=dict[str, Declared])
    narrowed: tuple[str, ...] = ()
    round_trip: float | None = None
    jitter: float | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waivers:
    """Which broken clauses were excused.

    Attributes:
        file: the name of the waiver file.
        sha256: the hash of its content, in hexadecimal.
        used: what it said about each clause that is waived: the reason, by clause id.
    """

    file: str
    sha256: str
    used: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """How the tests were run.

    Attributes:
        contract: the version of the contract that was tested.
        version: of upshot: the library and the suite are one distribution.
        python: the version of the interpreter, such as `"CPython 3.12.3"`.
        platform: what it ran on, such as `"Linux-6.1-x86_64"`.
        started: when, in ISO 8601 with its offset to UTC.
        duration: how long the run took, in seconds.
        seed: what everything random was drawn from.
        command: the command line, word by word; as given on the way into a report, masked
            inside it.
        filters: the options that left tests out, such as `"--clause=ST"`; () if nothing did.
        complete: False if the run was stopped before its last test.
        certify, disruptive, strict: whether the options of these names were given.
        waivers: None if no waiver file was given.
        untested: what `--backend=all` could not test, and why, by name.
    """

    contract: str
    version: str
    python: str
    platform: str
    started: str
    duration: float
    seed: int
    command: tuple[str, ...] = field(repr=False)
    filters: tuple[str, ...] = ()
    complete: bool = True
    certify: bool = False
    disruptive: bool = False
    strict: bool = False
    waivers: Waivers | None = None
    untested: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def whole(self) -> bool:
        """Every test that applies was run: only then can a backend be conformant."""
        return self.complete and not self.filters


def declared(capabilities: Capabilities) -> Mapping[str, Declared]:
    """Return capabilities as plain data, by name."""
    values = asdict(capabilities)
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
