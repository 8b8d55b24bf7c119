"""The suite is tested by mutants: each has one small, plausible bug that one clause forbids.

`backends()` are layers above a backend that conforms; `core.MUTANTS` break the core, for clauses
that no backend can break alone. `over` puts a mutant above `memory`, `redis` and others. To add
one, write a class with `kills` in the module of its group.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from .kinds import Mutant


def backends() -> Iterator[type[Mutant]]:
    """Yield every mutant and every control that is a layer above a backend."""
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for found in list(vars(loaded).values()):
            own = isinstance(found, type) and found.__module__ == loaded.__name__
            if own and issubclass(found, Mutant) and "kills" in vars(found):
                yield found


def name_of(mutant: type[Mutant]) -> str:
    """Return what the environment calls a mutant: `states:LastTerminalWins`."""
    return f"{mutant.__module__.rpartition('.')[2]}:{mutant.__name__}"
