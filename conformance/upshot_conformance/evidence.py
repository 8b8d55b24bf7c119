"""Gathers, when a run is over, what its report says beside what the tests found out."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import metadata

from upshot import clock, registry
from upshot.errors import UpshotError
from upshot_conformance.contract import CONTRACT
from upshot_conformance.options import Options
from upshot_conformance.report import BackendFacts, RunFacts, Waivers, declared
from upshot_conformance.selection import Run, Target

__all__ = ["backend_facts", "run_facts"]


def run_facts(
    options: Options,
    run: Run,
    *,
    started: float,
    complete: bool,
    waived: Mapping[str, str],
    untested: Mapping[str, str],
) -> RunFacts:
    """Return how the tests were run.

    Args:
        options: what was asked for.
        run: what its tests shared.
        started: when it began, in seconds since the epoch.
        complete: False if it was stopped before its last test.
        waived: why each waived clause is, by clause.
        untested: what `all` could not test, and why.
    """
    began = clock.to_datetime(started)
    assert began is not None
    waivers = options.waivers
    return RunFacts(
        contract=CONTRACT,
        version=metadata.version("upshot"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(terse=True),
        started=began.isoformat(timespec="seconds"),
        duration=round(clock.now() - started, 1),
        seed=run.seed,
        command=tuple(sys.orig_argv),
        filters=tuple(options.filters),
        complete=complete,
        certify=options.certify,
        disruptive=options.disruptive,
        strict=options.strict,
        waivers=Waivers(file=waivers.name, sha256=waivers.digest, used=waived)
        if len(waivers)
        else None,
        untested=untested,
    )


def backend_facts(targets: Sequence[Target], run: Run) -> list[BackendFacts]:
    """Return what is known about each backend, while its service still runs."""
    return [_facts(target, run) for target in targets]


def _facts(target: Target, run: Run) -> BackendFacts:
    backend = registry.backend_class(target.url)
    capabilities = target.capabilities
    assert capabilities is not None, "it was asked before the first test"
    timing = run.timings.get(target.label)
    return BackendFacts(
        label=target.label,
        url=target.text,
        private=target.private,
        distribution=target.offer,
        contract=target.contract,
        drivers=dict(_drivers(target)),
        server=_server(target),
        capabilities=declared(capabilities),
        narrowed=tuple(
            field.name
            for field in fields(capabilities)
            if getattr(capabilities, field.name) != getattr(backend.capabilities, field.name)
        ),
        round_trip=timing.round_trip if timing else None,
        jitter=timing.jitter if timing else None,
        scale=run.scale,
    )


def _drivers(target: Target) -> Iterator[tuple[str, str]]:
    """Yield name and version of the distributions whose errors the backend knows."""
    errors = registry.backend_class(target.url).driver_errors
    listed = {error for kind in fields(errors) for error in getattr(errors, kind.name)}
    packages = {error.__module__.partition(".")[0] for error in listed}
    owners = metadata.packages_distributions()
    for name in sorted({owner for package in packages for owner in owners.get(package, ())}):
        yield name, metadata.version(name)


def _server(target: Target) -> str:
    """Return what the service says it is; "" if it cannot be asked."""
    with contextlib.suppress(UpshotError, OSError):
        harness = target.open_harness()
        if harness is not None:
            with contextlib.closing(harness):
                return harness.server_version()
    return ""
