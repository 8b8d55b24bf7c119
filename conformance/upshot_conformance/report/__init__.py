"""The evidence of a run: what `--conformance-report DIR` writes for programs and for people.

`write` puts these files into the folder, all made from one `Evidence`:

    results.jsonl     every result; the others can be made from it again. `lines` tells the format.
    junit.xml         one test suite for each backend, for whatever shows test results
    report.html       one page, to be read, linked to and printed
    report.md         the same in short, for where HTML is not shown
    badge-NAME.json   for each backend, what https://shields.io/badges/endpoint-badge takes
"""

from __future__ import annotations

from upshot_conformance.report.evidence import Evidence, Verdict, gather
from upshot_conformance.report.facts import BackendFacts, RunFacts, Waivers, declared
from upshot_conformance.report.files import ReportError, write
from upshot_conformance.report.lines import EvidenceError, read

__all__ = [
    "BackendFacts",
    "Evidence",
    "EvidenceError",
    "ReportError",
    "RunFacts",
    "Verdict",
    "Waivers",
    "declared",
    "gather",
    "read",
    "write",
]
