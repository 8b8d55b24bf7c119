"""What importing upshot loads: no more than its user needs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import upshot

HEAVY = {
    "asyncio",
    "concurrent.futures",
    "email",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "pathlib",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tomllib",
}
"""What takes long to import, and an app does without until it sends or runs a task."""

APP = {
    "upshot",
    "upshot.app",
    "upshot.config",
    "upshot.configurable",
    "upshot.errors",
    "upshot.forking",
    "upshot.masking",
    "upshot.naming",
    "upshot.settings",
    "upshot.spelling",
    "upshot.typed_text",
    "upshot.url",
}


def loaded_by(program: str) -> set[str]:
    """The modules that a program loads beyond those that every program has."""
    lines = (
        "import sys; before = set(sys.modules)",
        program,
        "print(*set(sys.modules) - before, sep='\\n')",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def own(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "upshot"}


def test_the_package_alone_loads_nothing() -> None:
    assert loaded_by("import upshot") <= {"upshot", "__future__"}


def test_a_name_loads_its_own_module_only() -> None:
    modules = loaded_by("from upshot import UpshotError")

    assert own(modules) == {"upshot", "upshot.errors"}


def test_the_module_of_a_name_is_found_without_an_import_of_its_own() -> None:
    modules = loaded_by("import upshot; upshot.errors.ResultTimeoutError")

    assert own(modules) == {"upshot", "upshot.errors"}


def test_an_app_loads_little() -> None:
    modules = loaded_by(
        "from upshot import App; App(broker='redis://localhost', backend='redis://localhost')"
    )

    assert own(modules) == APP
    assert modules & HEAVY == set()


def test_a_task_loads_nothing_of_services_and_handles() -> None:
    modules = loaded_by(
        "from upshot import App\n"
        "app = App(broker='redis://localhost', backend='redis://localhost')\n"
        "app.task(lambda: None)"
    )

    assert "upshot.registration" in modules
    assert own(modules) & {"upshot.client", "upshot.execution", "upshot.services"} == set()
    assert modules & {"asyncio", "importlib.metadata", "logging", "ssl"} == set()


def test_who_sends_and_reads_loads_nothing_that_only_a_worker_needs() -> None:
    modules = loaded_by(
        "from upshot import App\n"
        "with App(broker='memory://', backend='memory://') as app:\n"
        "    app.send_task('shop.order', ('tea',)).forget()"
    )

    assert "upshot.sending" in modules
    assert not {name for name in modules if name.startswith(("upshot.engine", "upshot.worker"))}


def test_a_type_checker_and_python_find_each_name_in_the_same_place() -> None:
    tree = ast.parse(Path(upshot.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("upshot.")
        for alias in node.names
    }

    assert sorted(seen) == sorted(upshot.__all__)
    for name, module in seen.items():
        assert getattr(upshot, name) is getattr(importlib.import_module(module or ""), name)


def test_dir_and_the_star_know_every_name() -> None:
    program = "import upshot; print(*dir(upshot), sep='\\n'); from upshot import *; App, State"

    assert loaded_by(program) >= set(upshot.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'upshot' has no attribute 'Celery'$"):
        _ = upshot.Celery  # type: ignore[attr-defined]  # pyright: ignore
