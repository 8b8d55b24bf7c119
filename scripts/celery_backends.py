"""Measures Celery's result backends with upshot's conformance suite, and fills in the page.

python -m scripts.celery_backends run               all five, with private servers; some 20 minutes
python -m scripts.celery_backends run celery+redis  some of them; --clause=ST some clauses only
python -m scripts.celery_backends plain             only what Celery does without upshot
python -m scripts.celery_backends write             docs/celery-backends.md, from what is kept
python -m scripts.celery_backends check             exit code 1 if the page is out of date

What is kept is in `conformance/reports/celery`: `BACKEND.json`, how each clause stands and when
that was measured, and `plain.json`, what Celery did in `upshot_over_celery.plain`. Each group of
clauses is a run by itself: one that does not end takes no others with it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from scripts.celery_notes import LABELS, not_measured
from scripts.celery_page import Kept, Plain, updated

from upshot.errors import UpshotError
from upshot_conformance.clauses import CLAUSES
from upshot_conformance.contract import GROUPS
from upshot_conformance.findings import Standing, worst
from upshot_conformance.report import EvidenceError, read
from upshot_conformance.report.evidence import Evidence, Result
from upshot_conformance.report.files import replace_file

__all__ = [
    "PAGE",
    "REPORTS",
    "ROOT",
    "installed",
    "kept",
    "kept_plain",
    "look",
    "main",
    "measure",
    "variables",
]

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = ROOT / "conformance" / "over_celery"
REPORTS: Final = ROOT / "conformance" / "reports" / "celery"
PAGE: Final = ROOT / "docs" / "celery-backends.md"
PLAIN: Final = "plain.json"
DRIVERS: Final = ("celery", "kombu", "redis", "amqp", "pymongo", "sqlalchemy", "pymemcache")
_OPEN: Final = ("ResourceWarning: unclosed <socket", "ResourceWarning: Unclosed MongoClient")
"""What processes of the suite say, and must not, when they end with what nobody has closed."""
_CLOSING: Final = ("RL-5", "RL-7")
LONGEST_TEST: Final = 150  # seconds, after which a test of what hangs has failed
LONGEST_RUN: Final = 900  # seconds for one group of clauses


@contextlib.contextmanager
def installed() -> Generator[dict[str, str]]:
    """Install the adapter where nobody else finds it; yield what a process needs to."""
    with tempfile.TemporaryDirectory(prefix="upshot-over-celery-") as site:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-index", "--no-build-isolation", f"--target={site}"]
        subprocess.run([*pip, *options, str(SOURCE)], check=True)
        path = os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        sys.path.insert(0, site)  # for the harness that starts a service, and for plain Celery
        try:
            yield {"PYTHONPATH": path}
        finally:
            sys.path.remove(site)


@contextlib.contextmanager
def service(label: str) -> Generator[str]:
    """Start a private service; yield its `celery+…` URL."""
    harnesses = importlib.import_module("upshot_over_celery.harnesses")
    found = (vars(harnesses)[name] for name in harnesses.__all__)
    with next(each for each in found if each.scheme == label).start() as url:
        yield url


def measure(
    label: str,
    environment: Mapping[str, str],
    folder: Path,
    clauses: Sequence[str],
    *options: str,
) -> Kept:
    """Run some clauses on one backend; return what was found.

    Args:
        label: the URL scheme, such as `celery+redis`.
        environment: what to add to that of the process, as `installed` yields it.
        folder: where its report goes; empty.
        clauses: which.
        options: of pytest, besides.

    Raises:
        EvidenceError: the run ended without a report.
    """
    with contextlib.ExitStack() as stack:
        # A reply queue of Celery's outlives its client. On a service that is known to be private
        # the suite calls that a fault of every test, and not of the one that is about it.
        backend = stack.enter_context(service(label)) if label == "celery+rpc" else label
        command = [
            *(sys.executable, "-m", "pytest", "-p", "upshot_conformance.plugin", "-q"),
            *("-p", "no:cacheprovider", "--tb=short", f"--timeout={LONGEST_TEST}"),
            # pytest would keep a warning for each write to Redis, and the suite say that it grows.
            *("-p", "no:warnings"),
            *("--pyargs", "upshot_conformance", f"--rootdir={folder}", f"--backend={backend}"),
            *(f"--clause={each}" for each in clauses),
            *(f"--conformance-report={folder}", *options),
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                cwd=folder,
                env=variables(environment),
                timeout=LONGEST_RUN,
                check=False,
            )
    results = folder / "results.jsonl"
    if not results.exists():
        raise EvidenceError(f"{label}: the run of {' '.join(clauses)} ended without a report")
    return _taken(read(results), clauses)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a run, which is in another folder than the services' programs."""
    return {"UPSHOT_SERVICES_DIR": str(ROOT / ".services"), **os.environ, **environment}


def _taken(evidence: Evidence, clauses: Sequence[str]) -> Kept:
    (judged,) = evidence.judged
    run = evidence.run
    if not run.complete:
        raise EvidenceError(f"{judged.facts.label}: the run of {' '.join(clauses)} was stopped")
    return Kept(
        label=judged.facts.label,
        server=judged.facts.server,
        contract=run.contract,
        upshot=run.version,
        python=run.python,
        platform=run.platform,
        standings={each: _standing(evidence.results, each) for each in clauses},
        days=dict.fromkeys(clauses, run.started.partition("T")[0]),
    )


def _standing(results: Sequence[Result], clause_id: str) -> Standing:
    """Return how a clause stands; what a test says of open connections is about closing."""
    of_closing = clause_id in _CLOSING
    told: list[Standing] = []
    for each in results:
        if each.clause == clause_id and each.standing is not None:
            is_open = any(word in each.message for word in _OPEN)
            told.append(Standing.PASSED if is_open and not of_closing else each.standing)
    return worst(told)


def keep(fresh: Kept, folder: Path = REPORTS) -> None:
    """Keep what was found; what was kept about other clauses of the backend stays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{fresh.label}.json"
    before = _read(path) if path.exists() else fresh
    known = [each for each in CLAUSES if each in before.standings or each in fresh.standings]
    standings, days = {**before.standings, **fresh.standings}, {**before.days, **fresh.days}
    fresh = fresh._replace(
        standings={each: standings[each] for each in known},
        days={each: days[each] for each in known},
    )
    replace_file(path, json.dumps(fresh._asdict(), indent=1) + "\n")


def _read(path: Path) -> Kept:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found["standings"] = {name: Standing(text) for name, text in found["standings"].items()}
    return Kept(**found)


def look(labels: Sequence[str], environment: Mapping[str, str]) -> Plain:
    """Return what Celery itself does, by what was done and by backend; each in its own process."""
    plain = importlib.import_module("upshot_over_celery.plain")
    seen: dict[str, dict[str, str]] = {}
    for claim in plain.CLAIMS:
        for label in claim.backends:
            if label in labels:
                with service(label) as url:
                    words = (plain.__name__, claim.look.__name__, plain.celery_url(url))
                    done = subprocess.run(
                        [sys.executable, "-m", *words],
                        env={**os.environ, **environment},
                        capture_output=True,
                        check=True,
                        text=True,
                        timeout=LONGEST_TEST,
                    )
                seen.setdefault(f"{claim.clause}: {claim.done}", {})[label] = done.stdout.strip()
    return Plain({name: metadata.version(name) for name in DRIVERS}, seen)


def kept(folder: Path = REPORTS) -> list[Kept]:
    """Return what is kept about the backends, in the order of the page.

    Raises:
        EvidenceError: something is missing.
    """
    missing = [label for label in LABELS if not (folder / f"{label}.json").exists()]
    if missing:
        raise EvidenceError(f"nothing is kept about {', '.join(missing)}: run it first")
    return [_read(folder / f"{label}.json") for label in LABELS]


def kept_plain(folder: Path = REPORTS) -> Plain:
    """Return what is kept of what Celery itself does."""
    return Plain(**json.loads((folder / PLAIN).read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write or check; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("do", choices=("run", "plain", "write", "check"))
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=", ".join(LABELS))
    parser.add_argument("--clause", action="append", metavar="ID", help="or a group, such as ST")
    chosen = parser.parse_args(arguments)
    labels = chosen.backends or list(LABELS)
    try:
        if strangers := sorted(set(labels).difference(LABELS)):
            raise EvidenceError(f"no such backend: {', '.join(strangers)}")
        if chosen.do in ("run", "plain"):
            with installed() as environment:
                if chosen.do == "run":
                    _measure_all(labels, chosen.clause or list(GROUPS), environment)
                if chosen.do == "plain" or not chosen.clause:
                    _look_at_all(labels, environment)
        return _write(only_look=chosen.do == "check")
    except (UpshotError, OSError, ValueError, subprocess.SubprocessError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1


def _measure_all(
    labels: Sequence[str], wanted: Sequence[str], environment: Mapping[str, str]
) -> None:
    for label in labels:
        for group in GROUPS:
            asked = [
                each
                for each, clause in CLAUSES.items()
                if clause.group == group
                and {each, group}.intersection(wanted)
                and not not_measured(each, label)
            ]
            with tempfile.TemporaryDirectory(prefix="upshot-celery-") as folder:
                if asked:
                    keep(measure(label, environment, Path(folder), asked))


def _look_at_all(labels: Sequence[str], environment: Mapping[str, str]) -> None:
    fresh = look(labels, environment)
    before: Mapping[str, Mapping[str, str]] = (
        kept_plain().seen if (REPORTS / PLAIN).exists() else {}
    )
    seen = {
        what: {**before.get(what, {}), **fresh.seen.get(what, {})}
        for what in dict.fromkeys([*before, *fresh.seen])
    }
    replace_file(REPORTS / PLAIN, json.dumps(fresh._replace(seen=seen)._asdict(), indent=1) + "\n")


def _write(*, only_look: bool) -> int:
    before = PAGE.read_text(encoding="utf-8")
    text = updated(before, kept(), kept_plain())
    if text == before:
        return 0
    if only_look:
        name = PAGE.relative_to(ROOT)
        sys.stderr.write(f"{name} is out of date; run: python -m scripts.celery_backends write\n")
        return 1
    replace_file(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
