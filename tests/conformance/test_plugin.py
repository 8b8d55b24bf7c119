"""The command line of the suite: what can be tested, what cannot, and what is said about it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from upshot_conformance.servers import RedisServer

from .mutants.over import ENTRY_POINTS, MUTANT
from .running import SUITE, register, run_suite

QUICK = "--clause=ST-3"
PASSWORD = "Tr0ub4dor-unique"


def assert_usage_error(text: str, code: int, *parts: str) -> None:
    assert code == pytest.ExitCode.USAGE_ERROR, text
    for part in parts:
        assert part in text, text
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert "collected" not in text


def test_without_a_backend_only_memory_is_tested_and_the_report_says_so(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, QUICK)

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "no --backend was given: only memory is tested" in outcome.text
    assert "conformance: memory (upshot " in outcome.text
    assert "contract 1.0" in outcome.text
    assert "capabilities: reread, intermediate, atomic" in outcome.text


def test_the_repository_runs_the_shipped_tests(tmp_path: Path) -> None:
    shipped = run_suite(tmp_path, *SUITE, "--collect-only", "-q").text
    conformance = str(Path(__file__).parents[2] / "conformance")
    # The repository's own settings need the timeout plugin.
    here = run_suite(tmp_path, conformance, "--collect-only", "-q", plugins=["pytest_timeout"])

    assert here.code == pytest.ExitCode.OK, here.text
    assert names(here.text) == names(shipped)
    assert len(names(shipped)) > 200


def names(listing: str) -> list[str]:
    return [line.rpartition("/")[2] for line in listing.splitlines() if "::" in line]


def test_an_idle_plugin_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_idle.py").write_text(
        "import sys\n"
        "def test_nothing_is_loaded():\n"
        "    loaded = set(sys.modules)\n"
        "    assert not any(name.partition('.')[0] == 'upshot' for name in loaded)\n"
        "    assert 'upshot_conformance.session' not in loaded\n"
    )

    outcome = run_suite(tmp_path, "test_idle.py")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "conformance" not in outcome.text


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=sqlit")

    assert_usage_error(outcome.text, outcome.code, "--backend=sqlit", "did you mean sqlite")


def test_an_unknown_scheme_lists_what_there_is(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, f"--backend=rediss2://u:{PASSWORD}@127.0.0.1")

    assert_usage_error(outcome.text, outcome.code, "did you mean", "rediss")
    assert PASSWORD not in outcome.text


@pytest.mark.parametrize("extra", [(), ("-n", "2", "-p", "xdist")], ids=["alone", "xdist"])
def test_a_server_that_does_not_answer_stops_the_run(tmp_path: Path, extra: tuple[str]) -> None:
    url = f"redis://user:{PASSWORD}@127.0.0.1:1/0"

    outcome = run_suite(tmp_path, *SUITE, f"--backend={url}", "--backend-wait=1", *extra)

    assert_usage_error(
        outcome.text, outcome.code, "redis://user:***@127.0.0.1:1/0", "does not answer"
    )
    assert PASSWORD not in outcome.text


@pytest.mark.parametrize(
    "url", [f"redis://:{PASSWORD}@[bad", "sqlite:///x.db?upshot_nonsense=1", "://x", "redis://h:x"]
)
def test_a_url_that_cannot_be_read_is_one_message(tmp_path: Path, url: str) -> None:
    outcome = run_suite(tmp_path, *SUITE, f"--backend={url}")

    assert_usage_error(outcome.text, outcome.code, "--backend=")
    assert PASSWORD not in outcome.text


def test_a_server_program_that_is_missing_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if RedisServer.installed():
        pytest.skip("this machine keeps redis-server where no PATH is needed to find it")

    outcome = run_suite(tmp_path, *SUITE, "--backend=redis")

    assert_usage_error(outcome.text, outcome.code, "Redis is not installed", "apt-get install")


@pytest.mark.timeout(600)  # it starts every service
def test_all_skips_what_cannot_be_started_and_is_not_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if RedisServer.installed():
        pytest.skip("this machine keeps redis-server where no PATH is needed to find it")

    outcome = run_suite(tmp_path, *SUITE, "--backend=all", QUICK)

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "conformance of sqlite" in outcome.text
    assert "NOT TESTED: redis: " in outcome.text


def test_an_alias_comes_from_the_environment(tmp_path: Path) -> None:
    outcome = run_suite(
        tmp_path,
        *SUITE,
        QUICK,
        "--backend=my-db",
        environment={"UPSHOT_CONFORMANCE_URL_MY_DB": f"sqlite:///{tmp_path}/mine.db"},
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert f"conformance: my-db (upshot 0.1.0) at sqlite:///{tmp_path}/mine.db" in outcome.text


def test_an_alias_comes_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.upshot.conformance.backends]\nours = "memory://ours"\n'
    )

    outcome = run_suite(tmp_path, *SUITE, QUICK, "--result-backend=ours")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "conformance: ours (upshot 0.1.0) at memory://ours" in outcome.text


def test_several_backends_get_a_verdict_each(tmp_path: Path) -> None:
    outcome = run_suite(
        tmp_path, *SUITE, QUICK, "--backend=memory", "--backend=sqlite", "--backend=memory"
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    for label in ("memory", "sqlite", "memory-2"):
        assert f"conformance of {label}, contract 1.0" in outcome.text
    assert outcome.text.count("clauses: 1 passed") == 3


def test_a_run_that_proves_nothing_is_not_green(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--backend=memory", "-k", "expiry_that_cannot_be_kept")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "1 skipped" in outcome.text
    assert "verdict: not run: no clause was proven" in outcome.text


@pytest.mark.parametrize("backend", ["--backend=sqlite", "-q"], ids=["sqlite", "default"])
def test_workers_of_xdist_share_what_the_controller_started(tmp_path: Path, backend: str) -> None:
    clauses = ("--clause=ST-3", "--clause=ID", "--clause=RD-3")  # a pass, skips and refusals

    outcome = run_suite(tmp_path, *SUITE, backend, *clauses, "-p", "xdist", "-n", "2")

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "clauses: 6 passed" in outcome.text
    assert "verdict: partial" in outcome.text


def test_collecting_starts_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    outcome = run_suite(tmp_path, *SUITE, "--backend=redis", "--collect-only", "-q", QUICK)

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "[redis-SUCCESS-FAILURE]" in outcome.text


def test_an_unknown_clause_is_refused(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, *SUITE, "--clause=XX-1")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "--clause=XX-1: no such clause" in outcome.text


def test_another_plugin_may_own_the_short_option(tmp_path: Path) -> None:
    (tmp_path / "owner.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--backend', dest='theirs')\n"
    )

    outcome = run_suite(
        tmp_path, *SUITE, QUICK, "--result-backend=memory", plugins=["owner"], path=[tmp_path]
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text


def test_a_report_names_the_broken_clause_first_and_its_properties(tmp_path: Path) -> None:
    register(tmp_path, "upshot.backends", ENTRY_POINTS, name="mutants")

    outcome = run_suite(
        tmp_path, *SUITE, "--backend=mutant+memory", "--clause=ST-2", "-x", "--junitxml=report.xml",
        path=[tmp_path], environment={MUTANT: "states:LateStartOverwrites"},
    )  # fmt: skip

    assert outcome.code == pytest.ExitCode.TESTS_FAILED
    failure = ElementTree.parse(tmp_path / "report.xml").find(".//failure/..")
    assert failure is not None
    properties = [(each.get("name"), each.get("value")) for each in failure.iter("property")]
    assert ("clause", "ST-2") in properties
    assert ("backend", "mutant+memory") in properties
    message = failure.find("failure")
    assert message is not None
    assert (message.get("message") or "").startswith("broken clause ST-2: A record that is not")


def test_two_distributions_with_one_scheme_are_an_error(tmp_path: Path) -> None:
    for name in ("one", "two"):
        register(
            tmp_path,
            "upshot.backends",
            {"twice": "upshot_backends.memory.results:MemoryBackend"},
            name=name,
        )

    outcome = run_suite(tmp_path, *SUITE, "--backend=twice://", path=[tmp_path])

    assert_usage_error(outcome.text, outcome.code, "'twice' is offered by 'one' and 'two'")
