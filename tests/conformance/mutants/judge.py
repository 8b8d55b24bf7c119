"""Runs the suite on one mutant and says what became of it; `make mutants` prints all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from tests.conformance.running import SUITE, Outcome, register, run_suite
from upshot_conformance.clauses import CLAUSES

from . import core_faults
from .over import ENTRY_POINTS, MUTANT, PREFIX

SECONDS = 300
"""How long a run may take; nothing kills a mutant but a clause that says why."""

_CUSTOM = """\
import os, sys
if os.environ.get("UPSHOT_CORE_MUTANT") and "pytest" not in sys.orig_argv:
    import mutants.core
"""

_SEED = 1  # what is drawn kills a mutant or does not, but not now and then

_DEFECT = re.compile(r"\b(?:Name|Attribute|Import|ModuleNotFound|Syntax|UnboundLocal|Type)Error\b")


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    """The clause that it names is red, and the message says so."""
    SURVIVED = "SURVIVED"
    """That clause is not red."""
    BROKEN = "BROKEN"
    """It does not do what it is meant to do, so nothing has been learnt."""
    HUNG = "HUNG"
    """The run did not end by itself."""


@dataclass(frozen=True)
class Judgement:
    """The fate of a mutant, and what pytest printed."""

    fate: Fate
    text: str


def backend(name: str, clause_id: str, *, over: str = "memory", disruptive: bool) -> Judgement:
    """Judge a mutant that is a layer, above the backend of the scheme `over`.

    Args:
        name: what the environment calls it.
        clause_id: the clause that must go red.
        over: the scheme of the backend below; a private service is started for it.
        disruptive: run the tests that disturb the service, too.
    """
    return _judge(
        clause_id,
        f"--backend={PREFIX}{over}",
        *(["--disruptive"] if disruptive else []),
        environment={MUTANT: name},
    )


def core(name: str, clause_id: str) -> Judgement:
    """Judge a mutant of the core, on memory, or on a service behind a network if it takes one."""
    return _judge(
        clause_id,
        f"--backend={'redis' if name in core_faults.NETWORK else 'memory'}",
        plugins=["mutants.core"],
        environment={"UPSHOT_CORE_MUTANT": name},
    )


def control(name: str, *, over: str = "memory") -> Outcome:
    """Run what a control must pass, above the backend of the scheme `over`."""
    groups = ("ID", "ST", "RD-1", "RD-5", "RL-2", "RL-3", "RL-5", "EX", "BT", "CP")
    return run(
        f"--backend={PREFIX}{over}",
        *(f"--clause={group}" for group in groups),
        environment={MUTANT: name},
        timeout=SECONDS,
    )


def run(
    *arguments: str, environment: dict[str, str], plugins: Sequence[str] = (), timeout: float
) -> Outcome:
    """Run the suite where mutants are installed, from an empty folder."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        register(folder, "upshot.backends", ENTRY_POINTS, name="mutants")
        # Runs at the start of each interpreter: a broken core is broken in second processes too.
        (folder / "sitecustomize.py").write_text(_CUSTOM)
        return run_suite(
            folder,
            *SUITE,
            *arguments,
            path=[folder],
            environment=environment,
            plugins=plugins,
            timeout=timeout,
        )


def _judge(
    clause_id: str, *arguments: str, environment: dict[str, str], plugins: Sequence[str] = ()
) -> Judgement:
    try:
        outcome = run(
            *arguments,
            f"--clause={clause_id}",
            f"--seed={_SEED}",
            "-x",
            environment=environment,
            plugins=plugins,
            timeout=SECONDS,
        )
    except TimeoutExpired as exc:
        return Judgement(Fate.HUNG, str(exc))
    return Judgement(_fate(outcome, clause_id), outcome.text)


def _fate(outcome: Outcome, clause_id: str) -> Fate:
    if outcome.code == pytest.ExitCode.OK:
        return Fate.SURVIVED
    own = [line for line in outcome.text.splitlines() if "mutants/" in line or line[:2] == "E "]
    crashed = outcome.code != pytest.ExitCode.TESTS_FAILED or "collected" not in outcome.text
    if crashed or any(map(_DEFECT.search, own)):
        return Fate.BROKEN
    said = f"broken clause {clause_id}: {CLAUSES[clause_id].text}" in outcome.text
    listed = re.search(rf"^failed: .*\b{clause_id}\b", outcome.text, re.MULTILINE)
    return Fate.KILLED if said and listed else Fate.SURVIVED
