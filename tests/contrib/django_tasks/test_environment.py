"""Runs the tests of this folder on Django 6, which is in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-django6" / "env" / "bin" / "python"
FILES = sorted(
    str(each.relative_to(ROOT))
    for each in Path(__file__).parent.glob("test_*.py")
    if each != Path(__file__)
)
OTHERS = [
    ["tests/test_repo.py", "-k", "test_all_is_exactly and upshot_contrib.django"],
    ["tests/contrib/django/test_project.py"],
]


@pytest.mark.timeout(600)  # seconds; they take a few, and share the machine with others
@pytest.mark.parametrize("chosen", [*([file] for file in FILES), *OTHERS], ids=lambda each: each[0])
def test_on_django_6(chosen: list[str], tmp_path: Path) -> None:
    assert PYTHON.exists(), "`make .venv-django6/.installed` makes the environment of Django 6"
    report = tmp_path / "report.xml"
    arguments = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen]

    done = subprocess.run(
        [str(PYTHON), "-m", "pytest", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )

    assert report.exists(), done.stdout + done.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = {f"{case.get('name')}: {child.tag}" for case in cases for child in case if ended(child)}
    assert bad == set(), done.stdout
    assert len(cases) > 0
    assert done.returncode == 0, done.stdout + done.stderr


def ended(child: ElementTree.Element) -> bool:
    """Tell whether a part of a report says that a test did not pass: one that was skipped, too."""
    return child.tag in {"failure", "error", "skipped"}
