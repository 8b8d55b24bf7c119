"""The badge of a backend, as https://shields.io/badges/endpoint-badge reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Judged, Verdict

__all__ = ["badge"]

_COLORS: Final[Mapping[Verdict, str]] = {
    Verdict.CONFORMANT: "brightgreen",
    Verdict.PARTIAL: "yellow",
    Verdict.NON_CONFORMANT: "red",
    Verdict.NOT_RUN: "lightgrey",
}


def badge(judged: Judged, contract: str) -> str:
    """Return the JSON of a backend's badge; it is green only for a conformant backend.

    The message counts proven clauses among those that apply: `core 56/56 · ext 14/14 · 0 waived`.

    Args:
        judged: the backend.
        contract: the version that was tested.
    """
    waived = sum(cell.standing is Standing.WAIVED for cell in judged.cells.values())
    core, extended = ("/".join(map(str, judged.kept(level))) for level in ("core", "extended"))
    message = f"core {core} · ext {extended} · {waived} waived"
    if judged.verdict is Verdict.NOT_RUN:
        message = str(judged.verdict)
    elif judged.verdict is not Verdict.CONFORMANT:
        message = f"{judged.verdict} · {message}"
    endpoint = {
        "schemaVersion": 1,
        "label": f"upshot contract {contract}",
        "message": message,
        "color": _COLORS[judged.verdict],
    }
    return json.dumps(endpoint, ensure_ascii=False) + "\n"
