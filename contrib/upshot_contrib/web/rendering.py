"""Templates to HTML: everything that is put into one is escaped."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

__all__ = ["LOGIN", "STATIC", "page", "rendered", "way_up"]

LOGIN: Final = "login"
"""Where the form for the token leads."""

STATIC: Final = Path(__file__).parent / "static"
"""Style sheet, script and icon."""

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def way_up(path: str) -> str:
    """Return what leads from a path to the folder of all pages: a proxy may have moved that."""
    return "../" * (path.count("/") - 1)


def rendered(template: str, **context: Any) -> str:
    """Return what a template makes of `context`."""
    return _TEMPLATES.get_template(template).render({"up": "", **context}, login=LOGIN)


def page(template: str, *, status: HTTPStatus = HTTPStatus.OK, **context: Any) -> HTMLResponse:
    """Return a template as an answer."""
    return HTMLResponse(rendered(template, **context), status_code=status)
