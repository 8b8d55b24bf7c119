"""Namespaces of the suite, and the removal of what runs leave in them.

Every namespace begins with `cf-`, the time of the run in UTC and a random word, so that what a
killed run left on a shared service can be told from what another run uses now.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from datetime import UTC, datetime
from typing import Final

from upshot import clock
from upshot_conformance.selection import Target

__all__ = ["new_prefix", "remove"]

_FORMAT: Final = "%Y%m%dT%H%M%S"
_PREFIX: Final = re.compile(r"cf-(\d{8}T\d{6})-[0-9a-f]{6}")
_OLD: Final = 7200.0
"""Seconds after which a run is taken for dead; none takes a tenth of that."""


def new_prefix() -> str:
    """Return what every namespace of a new run begins with."""
    started = clock.to_datetime(clock.now())
    return f"cf-{started:{_FORMAT}}-{secrets.token_hex(3)}"


def remove(target: Target, prefix: str) -> None:
    """Remove what a run left in a service, and what runs before it did that are long dead."""
    harness = target.open_harness()
    if harness is None:
        return
    with contextlib.closing(harness):
        harness.purge(prefix)
        found = (_PREFIX.search(name) for name in harness.raw_objects("cf-"))
        runs = {match[0]: match[1] for match in found if match}
        for run, started in runs.items():
            began = datetime.strptime(started, _FORMAT).replace(tzinfo=UTC)
            if clock.now() - began.timestamp() > _OLD:
                harness.purge(run)
