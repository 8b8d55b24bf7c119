"""What the command line asks of a run, read and checked once.

The options themselves are declared in `upshot_conformance.plugin`, which must not import much.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from upshot import clock
from upshot_conformance.clauses import CLAUSES
from upshot_conformance.plugin import DEST
from upshot_conformance.waivers import WaiverError, Waivers

__all__ = ["Options"]

_LEVELS: Final = {
    "core": ("core",),
    "extended": ("core", "extended"),
    "all": ("core", "extended", "provisional"),
}
"""What `--level` takes, and the levels that are tested then."""

_FILTERS: Final = (
    ("keyword", "-k"),
    ("markexpr", "-m"),
    ("deselect", "--deselect"),
    ("ignore", "--ignore"),
    ("ignore_glob", "--ignore-glob"),
    ("lf", "--last-failed"),
    ("stepwise", "--stepwise"),
)
"""pytest's own options that leave tests out."""


_WIDEST: Final = 100.0
"""The largest `--timing-scale`: a bound of 0.1 s is ten seconds then, and proves nothing more."""

_WIDEST_CERTIFIED: Final = 4.0
"""The largest one with `--certify`: a machine that does four times too much."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to do.

    Attributes:
        backends: what stood after `--backend`, in order; empty if nothing did.
        clauses: the ids of the clauses that are tested.
        filters: the options that leave out a part of the suite, as they were written.
        strict: what works although undeclared turns the run red.
        disruptive: tests that end, freeze or restart a service are run.
        certify: nothing may be left out, unproven or waived.
        seed: what random values are drawn from; None draws one.
        wait: seconds that a service has to answer the first request.
        allow_unavailable: what `--backend=all` cannot start does not turn the run red.
        keep: what the suite stored is left in the service.
        scale: by which factor all time bounds are widened.
        folder: where reports go; None for nowhere.
        waivers: what is known to fail.
    """

    backends: Sequence[str] = ()
    clauses: frozenset[str] = frozenset(CLAUSES)
    filters: Sequence[str] = ()
    strict: bool = False
    disruptive: bool = False
    certify: bool = False
    seed: int | None = None
    wait: float = 10.0
    allow_unavailable: bool = False
    keep: bool = False
    scale: float = 1.0
    folder: Path | None = None
    waivers: Waivers = field(default_factory=Waivers)

    @classmethod
    def read(cls, config: pytest.Config) -> Options:
        """Read pytest's command line.

        Raises:
            pytest.UsageError: a value is wrong, or two options contradict each other.
        """
        certify = bool(_value(config, "certify"))
        level: str = _value(config, "level") or "all"
        wanted: Sequence[str] = _value(config, "clauses") or ()
        read = cls(
            backends=_value(config, "backends") or (),
            clauses=frozenset(_clauses(wanted)).intersection(_of_level(level)),
            filters=[
                *(f"--clause={each}" for each in wanted),
                *([f"--level={level}"] if level != "all" else []),
                *(flag for name, flag in _FILTERS if config.getoption(name, None)),
                *(word for word in config.args if "::" in word),
            ],
            strict=bool(_value(config, "strict")) or certify,
            disruptive=bool(_value(config, "disruptive")) or certify,
            certify=certify,
            seed=_value(config, "seed"),
            wait=_value(config, "wait"),
            allow_unavailable=bool(_value(config, "allow_unavailable")),
            keep=bool(_value(config, "keep")),
            scale=_value(config, "scale"),
            folder=_value(config, "report"),
            waivers=_waivers(_value(config, "waivers")),
        )
        _check(
            read,
            parallel=bool(config.getoption("numprocesses", None)),
            parallel_worker=hasattr(config, "workerinput"),
        )
        return read


def _value(config: pytest.Config, name: str) -> Any:
    return config.getoption(DEST + name)


def _check(options: Options, *, parallel: bool, parallel_worker: bool) -> None:
    """Refuse what makes no sense, alone or together."""
    if not options.clauses:
        raise pytest.UsageError(f"{' '.join(options.filters)} leaves no clause to be tested")
    if options.disruptive and parallel:
        raise pytest.UsageError(
            f"{'--certify' if options.certify else '--disruptive'} ends services under whoever "
            "uses them: run it without -n"
        )
    if options.certify and options.filters:
        raise pytest.UsageError(
            f"--certify tests everything: run it without {', '.join(options.filters)}"
        )
    if options.certify and len(options.waivers):
        raise pytest.UsageError("--certify accepts no waivers: run it without --known-failures")
    if options.folder is not None and not parallel_worker:
        _check_folder(options.folder)
    if not 1 <= options.scale <= _WIDEST or not 0 <= options.wait < math.inf:
        raise pytest.UsageError(
            f"--timing-scale must be from 1 to {_WIDEST:g}, --backend-wait 0 or more seconds"
        )
    if options.certify and options.scale > _WIDEST_CERTIFIED:
        raise pytest.UsageError(
            f"--certify accepts a --timing-scale of at most {_WIDEST_CERTIFIED:g}"
        )


def _check_folder(folder: Path) -> None:
    """Find out before the tests whether the report can be written after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError):
        raise pytest.UsageError(f"--conformance-report: {folder} is no folder") from None
    except OSError as exc:
        raise pytest.UsageError(
            f"--conformance-report: nothing can be written to {folder}: {exc.strerror or exc}"
        ) from None


def _clauses(wanted: Iterable[str]) -> set[str]:
    """Return the ids of the clauses and groups that `--clause` names; all for none."""
    chosen: set[str] = set()
    for want in wanted:
        name = want.upper()
        ids = {each for each in CLAUSES if each == name or each.startswith(f"{name}-")}
        if not ids:
            groups = ", ".join(dict.fromkeys(each.group for each in CLAUSES.values()))
            raise pytest.UsageError(f"--clause={want}: no such clause; the groups are {groups}")
        chosen |= ids
    return chosen or set(CLAUSES)


def _of_level(level: str) -> set[str]:
    return {each.id for each in CLAUSES.values() if each.level in _LEVELS[level]}


def _waivers(path: Path | None) -> Waivers:
    if path is None:
        return Waivers()
    today = clock.to_datetime(clock.now())
    assert today is not None
    try:
        return Waivers.read(path, today=today.date())
    except WaiverError as exc:
        raise pytest.UsageError(f"--known-failures: {exc}") from None
