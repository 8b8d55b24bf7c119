"""The site of the documentation is built without a warning, and holds what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import upshot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built; a warning is an error (`strict` in mkdocs.yml)."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    return folder


def test_every_page_of_docs_is_in_the_navigation(site: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}

    assert pages <= {*re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)}


def test_the_reference_has_every_name_that_is_imported_from_upshot(site: Path) -> None:
    page = (site / "reference" / "index.html").read_text(encoding="utf-8")

    assert [name for name in upshot.__all__ if f'id="upshot.{name}"' not in page] == []


def test_the_pages_from_elsewhere_are_there(site: Path) -> None:
    assert "A record that does not apply" in (site / "contract" / "index.html").read_text()
    assert "Ten lines" in (site / "index.html").read_text()


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="?(https?:)?//')

    assert [page.name for page in site.rglob("*.html") if loaded.search(page.read_text())] == []
