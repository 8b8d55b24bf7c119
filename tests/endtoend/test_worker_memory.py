"""What the processes of a worker have in memory, and share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upshot import App

TASKS = """

    @app.task
    def memory() -> list[object]:
        import gc
        import sys

        return [gc.get_freeze_count(), len(gc.get_objects()), sorted(sys.modules)]
"""


@pytest.fixture
def memory(project: Path, start_worker: Callable[..., Any]) -> tuple[int, int, set[str]]:
    """What a process of a worker has: objects that no collection looks at, others, modules."""
    with (project / "jobs.py").open("a") as file:
        file.write(textwrap.dedent(TASKS))
    start_worker("-c", "1")
    with App() as app:
        frozen, others, modules = app.send_task("jobs.memory").get(timeout=20)
    return frozen, others, set(modules)


def test_a_collection_looks_at_nothing_that_all_processes_share(
    memory: tuple[int, int, set[str]],
) -> None:
    frozen, others, _ = memory

    assert frozen > 2 * others


def test_a_worker_has_loaded_no_other_command(memory: tuple[int, int, set[str]]) -> None:
    _, _, modules = memory

    commands = {name for name in modules if name.startswith("upshot.cli.")}
    assert "upshot.cli.worker" in commands
    assert not commands & {f"upshot.cli.{name}" for name in ("backends", "call", "config")}
    assert "rich" not in modules
