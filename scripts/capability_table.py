"""Writes the README's table of backends from what their classes declare.

python -m scripts.capability_table --check    exit code 1 if the README's table is out of date
python -m scripts.capability_table --write    bring it up to date
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import Final

from scripts.generated import ROOT, between, keep

from upshot import registry
from upshot.backend import Backend, Capabilities

README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- capabilities:begin -->"
END: Final = "<!-- capabilities:end -->"

_KINDS: Final = {
    "visibility": "seconds",
    "poll_interval": "seconds",
    "expiry_resolution": "seconds",
    "max_record_bytes": "bytes",
    "max_key_bytes": "bytes",
}
_MEBIBYTE: Final = 2**20
_MILLISECONDS_BELOW: Final = 0.1


def table() -> str:
    """Return the table: a row for each capability, a column for each backend of this project."""
    backends = _backends()
    rows = [["", *(f"`{name}://`" for _, name in backends)]]
    for field in dataclasses.fields(Capabilities):
        cells = [_cell(field.name, getattr(kind.capabilities, field.name)) for kind, _ in backends]
        rows.append([f"`{field.name}`", *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _backends() -> list[tuple[type[Backend], str]]:
    """Return each backend class of this distribution with the shortest of its URL schemes."""
    found: dict[type[Backend], list[str]] = {}
    for offer in registry.offers(registry.BACKENDS):
        if offer.distribution == "upshot":
            kind: type[Backend] = registry.load(offer, Backend)  # type: ignore[type-abstract]  # a base to check against
            found.setdefault(kind, []).append(offer.name)
    return [(kind, min(names, key=len)) for kind, names in found.items()]


def _cell(name: str, value: bool | float | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "never"
    if _KINDS[name] == "bytes":
        whole, rest = divmod(value, _MEBIBYTE)
        return f"{value:,.0f} B" if rest else f"{whole:,.0f} MiB"
    if value == 0:
        return "0 s"
    return f"{value * 1000:g} ms" if value < _MILLISECONDS_BELOW else f"{value:g} s"


if __name__ == "__main__":
    update = partial(between, begin=BEGIN, end=END, new=table())
    sys.exit(keep({README: update}, doc=__doc__))
