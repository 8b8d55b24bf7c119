"""Puts the report into a folder, each file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from upshot.errors import UpshotError
from upshot_conformance.report.badge import badge
from upshot_conformance.report.evidence import Evidence, gather
from upshot_conformance.report.facts import BackendFacts, RunFacts
from upshot_conformance.report.junit import junit
from upshot_conformance.report.lines import dump
from upshot_conformance.report.markdown import markdown
from upshot_conformance.report.page import page
from upshot_conformance.verdict import Tally

__all__ = ["ReportError", "replace_file", "write"]


class ReportError(UpshotError):
    """The report cannot be written; the message says where and why."""


def write(
    folder: Path, run: RunFacts, backends: Sequence[BackendFacts], tallies: Iterable[Tally]
) -> Evidence:
    """Write every file of the report, and return what it says.

    Files of an earlier report are replaced; nothing else in the folder is touched.

    Args:
        folder: where to; made if it is not there.
        run: how the tests were run.
        backends: every backend that was to be tested.
        tallies: what was found out.

    Raises:
        ReportError: the folder is a file, or cannot be written to.
    """
    evidence = gather(run, backends, tallies)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _files(evidence):
            replace_file(folder / name, text)
    except (FileExistsError, NotADirectoryError):
        raise ReportError(f"the report cannot be written: {folder} is no folder") from None
    except OSError as exc:
        raise ReportError(f"the report cannot be written to {folder}: {exc}") from exc
    return evidence


def replace_file(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _files(evidence: Evidence) -> Iterator[tuple[str, str]]:
    yield "results.jsonl", dump(evidence)
    yield "junit.xml", junit(evidence)
    yield "report.html", page(evidence)
    yield "report.md", markdown(evidence)
    for judged in evidence.judged:
        name = quote(judged.facts.label, safe="+@")
        yield f"badge-{name}.json", badge(judged, evidence.run.contract)
