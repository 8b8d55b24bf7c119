"""Writes `docs/settings.md` from the settings themselves.

python -m scripts.settings_page --check    exit code 1 if the page is out of date
python -m scripts.settings_page --write    bring it up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Final

from scripts.generated import ROOT, between, keep

from upshot.cli.config import shown
from upshot.settings import SETTINGS

PAGE: Final = ROOT / "docs" / "settings.md"
BEGIN: Final = "<!-- settings:begin, made by scripts/settings_page.py -->"
END: Final = "<!-- settings:end -->"


def page() -> str:
    """Return a section for each setting."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for setting in SETTINGS.values():
        yield f"\n## `{setting.name}`\n"
        yield f"{setting.doc}\n"
        yield f"- value: {setting.expected}"
        yield f"- default: `{shown(setting.default)}`"
        yield f"- environment: `UPSHOT_{setting.name.upper()}`"
    yield ""


if __name__ == "__main__":
    update = partial(between, begin=BEGIN, end=END, new=page())
    sys.exit(keep({PAGE: update}, doc=__doc__))
