"""Importing what distributions offer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from upshot import registry
from upshot.backend import Backend

SLOW = """
import time

from upshot_backends.memory.results import MemoryBackend

began = time.monotonic()
time.sleep(0.2)


class SlowBackend(MemoryBackend):
    pass


ended = time.monotonic()
"""

NAMES = ("upshot_slow_one", "upshot_slow_two")


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Offer two backends whose imports take a while."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(SLOW)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[upshot.backends]\n{name.replace('_', '-')} = {name}:SlowBackend\n"
        )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    registry.offers.cache_clear()
    yield
    registry.offers.cache_clear()
    for name in NAMES:
        sys.modules.pop(name, None)


def test_two_threads_do_not_import_drivers_at_the_same_time(slow: None) -> None:
    wanted = [name.replace("_", "-") for name in NAMES]
    found = [offer for offer in registry.offers(registry.BACKENDS) if offer.name in wanted]

    with ThreadPoolExecutor(2) as pool:
        classes = list(pool.map(lambda offer: registry.load(offer, Backend), found))  # type: ignore[type-abstract]

    first, second = sorted(
        (sys.modules[kind.__module__] for kind in classes), key=lambda module: module.began
    )
    assert first.ended <= second.began
