"""Hooks of MkDocs: pages that lie elsewhere in the repository, and links to what is no page."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

__all__ = ["on_files", "on_page_markdown"]

ROOT: Final = Path(__file__).resolve().parents[1]
ELSEWHERE: Final = {
    "index.md": "README.md",
    "contract.md": "conformance/CONTRACT.md",
    "proven.md": "conformance/reports/1.0/README.md",
    "faults.md": "tests/faults/README.md",
    "changes.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
"""Pages of the site by name, and where their text lies."""

_PAGES: Final = {path: name for name, path in ELSEWHERE.items()}
_LINK: Final = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that lie outside `docs/`."""
    from mkdocs.structure.files import File  # only where the site is built

    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Lead each link to its page; name the place in the repository of what is none."""
    name = page.file.src_uri
    here = posixpath.dirname(ELSEWHERE.get(name, f"docs/{name}"))

    def mended(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match["path"]))
        target = _PAGES.get(path) or path.removeprefix("docs/")
        if path in _PAGES or (path.startswith("docs/") and files.get_file_from_path(target)):
            return f"[{match['text']}]({target}{match['anchor'] or ''})"
        return f"{match['text']} (`{path}`)"

    return _LINK.sub(mended, markdown)
