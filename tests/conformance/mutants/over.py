"""Puts the mutant that the environment names above a backend: the scheme `mutant+redis` and so on.

The entry points of these classes are made by the tests, so that the suite finds a mutant in
exactly the way in which it finds a stranger's backend, also in the processes that it starts.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Generator
from typing import Any

from upshot import registry
from upshot.backend import Backend
from upshot.url import Url
from upshot_conformance.harness import HARNESSES, Harness

from .kinds import Mutant

MUTANT = "UPSHOT_MUTANT"
"""The environment variable with `module:Class`, in this package."""

PREFIX = "mutant+"
SCHEMES = ("memory", "redis", "sqlite", "postgresql")
"""The backends that mutants can stand above."""


def _below(url: Url, scheme: str) -> Url:
    return Url.parse(url.driver_url(scheme))


def _chosen() -> type[Mutant]:
    module, _, name = os.environ[MUTANT].partition(":")
    found: type[Mutant] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found


def _over(scheme: str) -> type[Backend]:
    """Return the chosen mutant, above the backend of a scheme."""
    backend = registry.backend_class(Url.parse(f"{scheme}://"))
    mutant: Any = _chosen()

    def init(self: Any, url: Url) -> None:
        self.url = url
        mutant.__init__(self, backend(_below(url, scheme)))

    declared = {
        "__init__": init,
        "capabilities": mutant.declared(backend.capabilities),
        "contract": backend.contract,
        "driver_errors": backend.driver_errors,
        "over_broker": backend.over_broker,
        "conformance_harness": _harness_over(scheme),
    }
    return type(mutant.__name__, (mutant,), declared)


def _harness_over(scheme: str) -> type[Harness]:
    """Return the harness of the backend below, for URLs with our prefix."""
    offer = next(each for each in registry.offers(HARNESSES) if each.name == scheme)
    harness: Any = registry.load(offer, Harness)

    def init(self: Any, url: Url) -> None:
        harness.__init__(self, _below(url, scheme))

    @contextlib.contextmanager
    def start(cls: type[Harness]) -> Generator[str]:
        with harness.start() as text:
            yield PREFIX + text

    declared = {"__init__": init, "scheme": PREFIX + scheme, "start": classmethod(start)}
    return type(harness.__name__, (harness,), declared)


def __getattr__(name: str) -> type[Backend]:
    """Make `Over_redis` and so on when its entry point is loaded: with its driver, and no other."""
    word, _, scheme = name.partition("_")
    if word != "Over" or scheme not in SCHEMES:
        raise AttributeError(name)
    return _over(scheme)


ENTRY_POINTS = {f"{PREFIX}{scheme}": f"mutants.over:Over_{scheme}" for scheme in SCHEMES}
