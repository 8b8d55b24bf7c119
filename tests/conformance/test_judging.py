"""What the end of a test says: which clause it accuses, what binds nobody yet, what is swept."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from upshot import clock
from upshot_conformance import leftovers
from upshot_conformance.selection import Target
from upshot_conformance.servers import RedisServer

from .running import run_suite

FOUND_ONE = """
    from upshot_conformance.clauses import BrokenClauseError, clause

    @clause("ST-3", "RL-2", "RD-5")
    def test_of_many_things(client):
        raise BrokenClauseError("RL-2", "two keys are left")
"""
FAILS_TWICE = """
    import pytest
    from upshot_conformance.clauses import BrokenClauseError, clause

    @pytest.fixture
    def leaving(client):
        yield
        raise BrokenClauseError("RL-5", "a thread is left")

    @clause("FT-1")
    def test_of_a_fault(leaving):
        assert not "the result was found"
"""
FAILS = """
    from upshot_conformance.clauses import clause

    @clause("ST-3")
    def test_that_fails(client):
        assert client.url is None

    @clause("ST-2")
    def test_that_passes(client):
        assert client.url
"""
LATER = """
    from dataclasses import replace
    from upshot_conformance.clauses import CLAUSES

    CLAUSES["ST-3"] = replace(CLAUSES["ST-3"], since="1.1")
"""
SLOW = """
    from upshot_conformance.clauses import clause

    @clause("ST-3")
    def test_bounds(timing, run):
        print("scale", run.scale, "within", timing.within)
"""


def written(folder: Path, name: str, text: str) -> str:
    lines = text.strip("\n").splitlines()
    (folder / name).write_text("\n".join(line.removeprefix("    ") for line in lines) + "\n")
    return name


def test_a_test_of_many_clauses_accuses_the_one_that_it_found_broken(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, written(tmp_path, "test_many.py", FOUND_ONE), "--backend=memory")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "broken clause RL-2: " in outcome.text
    assert "broken clause ST-3" not in outcome.text
    assert re.search(r"^failed: RL-2$", outcome.text, re.MULTILINE)


def test_a_failure_in_the_tear_down_does_not_hide_the_one_before(tmp_path: Path) -> None:
    name = written(tmp_path, "test_twice.py", FAILS_TWICE)

    outcome = run_suite(tmp_path, name, "--backend=memory")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert re.search(r"^failed: RL-5 FT-1$", outcome.text, re.MULTILINE), outcome.text


def test_a_clause_that_is_newer_than_the_backend_turns_nothing_red(tmp_path: Path) -> None:
    written(tmp_path, "later.py", LATER)

    outcome = run_suite(
        tmp_path,
        written(tmp_path, "test_two.py", FAILS),
        "--backend=memory",
        plugins=["later"],
        path=[tmp_path],
    )

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert "fails, provisionally: ST-3 (the backend was written for contract 1.0)" in outcome.text
    assert "1 passed, 1 skipped" in outcome.text


def test_the_same_clause_is_red_once_it_binds(tmp_path: Path) -> None:
    outcome = run_suite(tmp_path, written(tmp_path, "test_two.py", FAILS), "--backend=memory")

    assert outcome.code == pytest.ExitCode.TESTS_FAILED, outcome.text
    assert "verdict: non-conformant: 1 clause is broken" in outcome.text


@pytest.mark.parametrize(
    ("more", "scale"),
    [
        ((), "1.0"),
        (("--timing-scale=3",), "3.0"),
        (("-p", "xdist", "-n", "1"), "2.0"),
    ],
    ids=["alone", "scaled", "crowded"],
)
def test_time_bounds_are_wider_where_time_is_shared(
    tmp_path: Path, more: tuple[str, ...], scale: str
) -> None:
    name = written(tmp_path, "test_slow.py", SLOW)

    outcome = run_suite(tmp_path, name, "--backend=memory", "-rP", *more)

    assert outcome.code == pytest.ExitCode.OK, outcome.text
    assert f"scale {scale} within " in outcome.text


def test_what_dead_runs_left_is_removed_and_nothing_else(redis_server: RedisServer) -> None:
    now = leftovers.new_prefix()
    recent = f"cf-{clock.to_datetime(clock.now() - 60):%Y%m%dT%H%M%S}-bbbbbb"
    names = {
        f"upshot:{now}-1": False,
        "upshot:cf-20200101T000000-aaaaaa-1": False,
        f"upshot:{recent}-1": True,
        "cf-notes": True,
        "theirs": True,
    }
    server: Any = cast("Any", redis.Redis).from_url(redis_server.url)
    with contextlib.closing(server):
        for name in names:
            server.set(name, "x")

        leftovers.remove(Target("redis", redis_server.url), now)

        assert {name: bool(server.exists(name)) for name in names} == names
        server.delete(*names)
