"""What `--backend` takes on this machine: aliases, installed schemes, names of harnesses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from upshot import registry
from upshot.backend import Backend
from upshot.errors import DriverMissingError, UpshotError
from upshot.registry import Offer
from upshot.url import mask
from upshot_conformance.harness import HARNESSES
from upshot_conformance.selection import Selector

__all__ = ["backend_list"]


def backend_list(root: Path) -> str:
    """Return the list as text that ends with a line break; nothing is started or connected to.

    Args:
        root: the folder whose `pyproject.toml` may hold aliases.
    """
    with contextlib.ExitStack() as stack:
        aliases = Selector(root, stack).aliases()
    rows = [("NAME", "FROM", "DRIVER", "WITHOUT A URL")]
    rows += [(name, "alias", "", f"means {mask(url)}") for name, url in sorted(aliases.items())]
    rows += _schemes()
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _schemes() -> Iterator[tuple[str, str, str, str]]:
    backends = {offer.name: offer for offer in registry.offers(registry.BACKENDS)}
    harnesses = {offer.name: offer for offer in registry.offers(HARNESSES)}
    for name in sorted(backends.keys() | harnesses.keys()):
        offer = backends.get(name) or harnesses[name]
        private = "starts a private service" if name in harnesses else "needs a URL: no harness"
        origin = f"{offer.distribution} {offer.version}"
        yield name, origin, _driver(backends[name]) if name in backends else "", private


def _driver(offer: Offer) -> str:
    try:
        registry.load(offer, Backend)  # type: ignore[type-abstract]  # a base to check against
    except DriverMissingError:
        return "missing"
    except UpshotError:
        return "broken"
    return "present"
