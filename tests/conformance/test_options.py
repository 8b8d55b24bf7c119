"""The options of a run: what is left out is said, and nothing is certified that was not proven."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from upshot_conformance.servers import RedisServer

from .mutants import judge
from .mutants.over import MUTANT
from .running import SUITE, run_suite

QUICK = "--clause=ST-3"


def test_a_level_leaves_out_the_clauses_above_it(tmp_path: Path) -> None:
    core = run_suite(tmp_path, *SUITE, "--backend=memory", "--level=core", "--collect-only", "-q")
    extended = run_suite(tmp_path, *SUITE, "--level=extended", "--collect-only", "-q")

    assert core.code == extended.code == pytest.ExitCode.OK
    assert "test_two_processes_never_both_win" not in core.text  # ST-4, where atomic is declared
    assert "test_two_processes_never_both_win" in extended.text
    assert "test_the_first_terminal_record_wins" in core.text


def test_a_level_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--level=core", "--clause=ST-4")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "--clause=ST-4 --level=core leaves no clause to be tested" in outcome.text


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ((QUICK,), "--certify tests everything: run it without --clause=ST-3"),
        (("--level=core",), "run it without --level=core"),
        (("-k", "wins"), "run it without -k"),
        (("-n", "2", "-p", "xdist"), "run it without -n"),
        (("--deselect=test_x.py",), "run it without --deselect"),
    ],
)
def test_a_part_of_the_suite_is_not_certified(
    tmp_path: Path, more: tuple[str, ...], complaint: str
) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", "--certify", *more)

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert complaint in outcome.text


def test_one_file_of_the_suite_is_not_certified(tmp_path: Path) -> None:
    part = ("--pyargs", "upshot_conformance.suite.test_ids")

    outcome = run_suite(tmp_path, *part, "--backend=memory", "--certify")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert re.search(
        r"--certify tests everything, and .*test_states\.py.* was not collected", outcome.text
    )


def test_what_works_undeclared_is_red_if_that_is_asked_for(tmp_path: Path) -> None:
    outcome = judge.run(
        "--backend=mutant+memory",
        "--clause=RD-1",
        "--strict-capabilities",
        environment={MUTANT: "controls:Modest"},
        timeout=judge.SECONDS,
    )

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "verdict: non-conformant: 1 clause is under-claimed" in outcome.text


def test_disruptive_tests_do_not_run_beside_others(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--disruptive", "-n", "2", "-p", "xdist")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "--disruptive ends services under whoever uses them" in outcome.text


def test_a_seed_repeats_what_was_drawn(tmp_path: Path) -> None:
    (tmp_path / "test_drawing.py").write_text(
        "from upshot_conformance.clauses import clause\n"
        "from hypothesis import given, settings, strategies as st\n"
        "drawn = []\n"
        '@clause("RS-1")\n'
        "@settings(database=None, max_examples=20)\n"
        "@given(st.integers())\n"
        "def test_drawing(target, number):\n"
        "    print('drawn', number)\n"
    )

    def drawn(*more: str) -> list[str]:
        outcome = run_suite(tmp_path, "test_drawing.py", "-s", "--backend=memory", *more)
        assert outcome.code == pytest.ExitCode.OK, outcome.text
        return re.findall(r"drawn (-?\d+)", outcome.text)

    assert len(drawn("--seed=7")) >= 20
    assert drawn("--seed=7") == drawn("--seed=7") != drawn("--seed=8")


def test_the_header_shows_the_seed(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", QUICK)

    assert re.search(r"^conformance: contract 1\.0, --seed=\d+$", outcome.text, re.MULTILINE)


def test_backends_are_listed_without_being_started(tmp_path: Path) -> None:
    password = "Tr0ub4dor-unique"
    outcome = run_suite(
        tmp_path,
        "--backend-list",
        environment={"UPSHOT_CONFORMANCE_URL_OURS": f"redis://:{password}@example.org"},
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert re.search(r"^memory +upshot 0\.1\.0 +present +starts a private", outcome.text, re.M)
    assert re.search(r"^ours +alias +means redis://:\*\*\*@example\.org$", outcome.text, re.M)
    assert password not in outcome.text


@pytest.mark.timeout(600)  # it starts every service, twice
def test_what_all_cannot_start_may_be_missing_unless_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if RedisServer.installed():
        pytest.skip("this machine keeps redis-server where no PATH is needed to find it")
    lenient = ("--backend=all", QUICK, "--allow-unavailable")

    allowed = run_suite(tmp_path, *SUITE, *lenient)
    required = run_suite(
        tmp_path, *SUITE, *lenient, environment={"UPSHOT_CONFORMANCE_REQUIRE": "sqlite,redis"}
    )

    assert allowed.code == pytest.ExitCode.OK, allowed.text
    assert "NOT TESTED: redis: " in allowed.text
    assert required.code == pytest.ExitCode.USAGE_ERROR, required.text
    assert "Redis is not installed" in required.text


def test_a_backend_of_a_later_contract_is_refused(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(
        "from upshot_backends.memory.results import MemoryBackend\n"
        "class Later(MemoryBackend):\n"
        "    contract = '9.0'\n"
    )
    (tmp_path / "later-1.0.dist-info").mkdir()
    info = tmp_path / "later-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[upshot.backends]\nlater = later:Later\n")

    outcome = run_suite(tmp_path, *SUITE, "--backend=later://", path=[tmp_path])

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "was written for contract '9.0', and this suite tests 1.0" in outcome.text


def test_several_backends_have_a_table_of_verdicts(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, QUICK, "--backend=memory", "--backend=sqlite")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert re.search(r"^=+ verdicts =+\nmemory  partial: .*\nsqlite  partial: ", outcome.text, re.M)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--timing-scale=nan",), "--timing-scale must be from 1 to 100"),
        (("--timing-scale=inf",), "--timing-scale must be from 1 to 100"),
        (("--timing-scale=0.5",), "--timing-scale must be from 1 to 100"),
        (("--timing-scale=9", "--certify"), "--certify accepts a --timing-scale of at most 4"),
        (("--backend-wait=nan",), "--backend-wait 0 or more seconds"),
        (("--backend-wait=-1",), "--backend-wait 0 or more seconds"),
        (("--conformance-report=",), "it is empty"),
        (("--known-failures=",), "it is empty"),
        (("--conformance-report=/proc/no",), "nothing can be written to /proc/no"),
        (("--known-failures=none.toml",), "none.toml cannot be read: No such file"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_message(
    tmp_path: Path, more: tuple[str, ...], complaint: str
) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", *more)

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert complaint in outcome.text
    assert "Traceback" not in outcome.text


def test_a_clause_may_be_written_in_small_letters(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", "--clause=st-3")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "clauses: 1 passed" in outcome.text


def test_a_harness_that_sees_nothing_is_not_taken_for_a_broken_backend(tmp_path: Path) -> None:
    (tmp_path / "blind.py").write_text(
        "from upshot_conformance.harnesses.memory import MemoryHarness\n"
        "MemoryHarness.raw_objects = lambda self, namespace: set()\n"
    )

    outcome = run_suite(
        tmp_path, *SUITE, "--backend=memory", QUICK, plugins=["blind"], path=[tmp_path]
    )

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "MemoryHarness is blind" in outcome.text


@pytest.mark.parametrize("late", ["redis", "all", "memory://x"])
def test_a_backend_behind_an_option_is_refused_and_no_other_is_tested(
    tmp_path: Path, late: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upshot", "conformance", "--clause=ST-3", late],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert f"{late} stands behind an option: write the backends first" in done.stderr
    assert not done.stdout
