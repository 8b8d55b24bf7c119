"""Keeps the evidence that this project's backends conform, and shows it in the README.

python scripts/conformance_matrix.py --take out/results.jsonl    keep what that run has shown
python scripts/conformance_matrix.py --write     bring the README's matrix up to date
python scripts/conformance_matrix.py --check     exit code 1 if something is out of date

What is kept is `conformance/reports/CONTRACT/BACKEND.jsonl`: what `--conformance-report` wrote
about one backend, without the lines of the tests. `README.md` beside these files is the matrix of
all clauses; the project's README has the one of all groups.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from upshot.errors import UpshotError
from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import CONTRACT
from upshot_conformance.report import EvidenceError, Verdict, read
from upshot_conformance.report.evidence import Evidence, Judged
from upshot_conformance.report.files import replace_file
from upshot_conformance.report.lines import dump
from upshot_conformance.report.markdown import kept, matrix

ROOT: Final = Path(__file__).resolve().parents[1]
REPORTS: Final = f"conformance/reports/{CONTRACT}"
BEGIN: Final = "<!-- conformance:begin -->"
END: Final = "<!-- conformance:end -->"


def take(root: Path, results: Path) -> None:
    """Keep the evidence of one run; what was kept about the same backends is replaced.

    Raises:
        EvidenceError: it is no evidence, of another contract, or of a part of the tests.
        OSError: a file cannot be read or written.
    """
    evidence = read(results)
    if evidence.run.contract != CONTRACT:
        raise EvidenceError(f"{results}: it is about contract {evidence.run.contract}")
    if not evidence.run.whole:
        raise EvidenceError(f"{results}: not every test was run, so that it shows nothing")
    folder = root / REPORTS
    folder.mkdir(parents=True, exist_ok=True)
    for judged in evidence.judged:
        alone = Evidence(run=evidence.run, judged=(judged,), results=())
        replace_file(
            folder / f"{quote(judged.facts.label, safe='+@')}.jsonl", dump(alone, summary=True)
        )


def outdated(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that is not as it should be, with the text that it should have.

    Raises:
        EvidenceError: nothing was kept, it is damaged, or it is about other clauses than the
            contract has now.
        ValueError: the README has no markers.
    """
    evidences = _kept(root / REPORTS)
    judged = [each for evidence in evidences for each in evidence.judged]
    page = root / REPORTS / "README.md"
    for path, text in (
        (page, kept(evidences)),
        (root / "README.md", _updated(_text(root / "README.md"), judged)),
    ):
        if _text(path) != text:
            yield path, text


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep, check or write; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="fail if something is out of date")
    choice.add_argument("--write", action="store_true", help="bring it up to date")
    choice.add_argument("--take", type=Path, metavar="FILE", help="keep a run's results.jsonl")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this)")
    options = parser.parse_args(arguments)
    try:
        if options.take is not None:
            take(options.root, options.take)
        old = list(outdated(options.root))
    except (UpshotError, OSError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    for path, text in old:
        if options.check:
            name = path.relative_to(options.root)
            sys.stderr.write(
                f"{name} is out of date; run: python scripts/conformance_matrix.py --write\n"
            )
        else:
            replace_file(path, text)
    return 1 if options.check and old else 0


def _kept(folder: Path) -> list[Evidence]:
    evidences = [read(path) for path in sorted(folder.glob("*.jsonl"), key=lambda each: each.stem)]
    if not evidences:
        raise EvidenceError(f"nothing is kept in {folder.name}: take a run's results first")
    for evidence in evidences:
        for judged in evidence.judged:
            if judged.cells.keys() != CLAUSES.keys():
                differing = ", ".join(sorted(judged.cells.keys() ^ CLAUSES.keys()))
                raise EvidenceError(
                    f"what is kept about {judged.facts.label} is about other clauses than the "
                    f"contract has ({differing}): run the suite again and take its results"
                )
    return evidences


def _updated(readme: str, judged: Sequence[Judged]) -> str:
    """Return the README's text with the matrix as it should be.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}")
    green = sum(each.verdict is Verdict.CONFORMANT for each in judged)
    words = (
        f"{green} of {len(judged)} backends are conformant with contract {CONTRACT}; "
        f"[the matrix of all clauses]({REPORTS}/README.md) says when and how it was tested.\n"
        "`refused` is what a backend does not declare and was tested to refuse; "
        "`n/a` is what does not exist on its service."
    )
    return f"{before}{BEGIN}\n{matrix(judged)}\n\n{words}\n{END}{after}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
