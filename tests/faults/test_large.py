"""Large results: once they are read, the process is as small as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.endtoend.services import SERVICES, Service

from .conftest import Sized
from .growth import MEGABYTE
from .scoreboard import Score

PROGRAM: Final = Path(__file__).parent / "programs" / "large.py"
SIZE: Final = 36
"""Megabytes of a result. The C library gives such a block back to the system at once, so that RSS
tells what is held, and not what was: above 32 MB it always does."""

BOUND: Final = 32 * MEGABYTE
"""What may stay for all connections and threads together: less than one result."""

KINDS: Final = [
    pytest.param(
        each, id=each.name, marks=() if each.name in {"redis", "sqlite"} else pytest.mark.wide
    )
    for each in SERVICES
    if each.name in {"redis", "sqlite", "postgresql"}
]


@pytest.mark.experiment(10)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", KINDS)
def test_large_results_leave_nothing_in_memory(
    service: Service, request: pytest.FixtureRequest, tmp_path: Path, score: Score, sized: Sized
) -> None:
    url = service.find(request, tmp_path)
    count = sized(6, 2)

    told = subprocess.run(
        [sys.executable, str(PROGRAM), url, str(count), str(SIZE)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout

    before, after = map(int, told.split())
    score.submitted = score.executed = score.recorded = 2 * count
    score.remark(f"{count} of {SIZE} MB: {(after - before) / MEGABYTE:+.1f} MB afterwards")
    if after - before > BOUND:
        score.surprise(f"{(after - before) / MEGABYTE:.0f} MB are still held")
    score.judge()
