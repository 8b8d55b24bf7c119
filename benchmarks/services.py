"""Services for benchmarks, started privately."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Final

from upshot_conformance.selection import Selector

__all__ = ["SERVICES", "started"]

SERVICES: Final = ("redis", "memcached", "mongodb", "sqlite", "postgresql", "rpc")
"""What can be measured; names as in URLs."""


@contextlib.contextmanager
def started(service: str) -> Generator[str]:
    """Start a private server of its own, in its usual configuration; yield its URL."""
    with contextlib.ExitStack() as stack:
        (target,) = Selector(Path.cwd(), stack).select([service])
        # Of memcached, two are started. Each contender spreads keys in its own way: take one.
        yield target.text.split(",")[0] if service == "memcached" else target.text
