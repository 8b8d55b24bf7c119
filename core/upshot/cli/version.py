"""`upshot version`: what a bug report needs to say about the installation."""

from __future__ import annotations

import platform
import re
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from typing import Final

import click

from upshot import registry
from upshot.cli.exits import OK
from upshot.cli.parameters import json_option
from upshot.cli.printing import show_field, show_json

__all__ = ["version"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([^'\"]+)")
_OTHER_EXTRAS: Final = frozenset({"all", "conformance"})  # no drivers, or named elsewhere too


@click.command()
@json_option
def version(as_json: bool) -> int:
    """Print the versions of upshot, Python, and the drivers and services that are installed."""
    found: dict[str, str | None] = {
        "upshot": metadata.version("upshot"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
    }
    for name in sorted(set(_distributions()) - found.keys()):
        found[name] = _installed(name)
    if as_json:
        show_json(found)
        return OK
    width = max(map(len, found))
    for name, number in found.items():
        show_field(name, number or "not installed", width=width)
    return OK


def _distributions() -> Iterator[str]:
    """Yield what upshot requires, drivers included, and whoever else offers a service."""
    for requirement in metadata.requires("upshot") or []:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name and not (extra and extra.group(1) in _OTHER_EXTRAS):
            yield name.group().lower()
    for group in (registry.BACKENDS, registry.BROKERS, registry.SERIALIZERS):
        yield from (offer.distribution for offer in registry.offers(group) if offer.distribution)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
