"""`upshot version`: what is installed, to paste into a report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

from upshot.cli.printing import print_json, print_lines

__all__ = ["command"]

_DISTRIBUTIONS = ("upshot", "sqlalchemy", "redis", "hiredis", "msgpack", "click", "rich")


@click.command("version")
@click.option("--json", "as_json", is_flag=True)
def command(as_json: bool) -> None:
    """Print the versions of upshot, Python and the drivers."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = version_of(name)
        except PackageNotFoundError:
            versions[name] = None
    if as_json:
        print_json(versions)
    else:
        print_lines((name, found or "not installed") for name, found in versions.items())
