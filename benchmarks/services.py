"""Services for benchmarks, started privately."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Final

from upshot_conformance.selection import Selector
from upshot_conformance.servers import MemcachedServer

__all__ = ["SERVICES", "started"]

SERVICES: Final = ("redis", "memcached", "mongodb", "sqlite", "postgresql", "rpc")
"""What can be measured; names as in URLs."""

_MEGABYTES: Final = 1024


@contextlib.contextmanager
def started(service: str) -> Generator[str]:
    """Start a private server of its own, in its usual configuration; yield its URL.

    memcached gets more memory than its default of 64 MB, which results of 1 MB fill: it would evict
    what a contender is about to fetch.
    """
    with contextlib.ExitStack() as stack:
        if service == "memcached":
            yield stack.enter_context(MemcachedServer(megabytes=_MEGABYTES)).url
        else:
            (target,) = Selector(Path.cwd(), stack).select([service])
            yield target.text
