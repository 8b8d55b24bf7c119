"""The hottest paths take no more instructions than the repository keeps, and no fewer."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.instructions.counting import CountingError, count
from benchmarks.instructions.kept import FILE, Kept, complaints, made_with
from benchmarks.instructions.paths import PATHS

HERE = "Python 3.11.7, redis 8.1.0"
KEPT = Kept(HERE, 80_000, {"redis: store": 4.0, "redis: fetch": 5.0})


@pytest.mark.timeout(660)
def test_the_hottest_paths_take_the_instructions_that_are_kept() -> None:
    reference, paths = count()

    ratios = {name: each / reference for name, each in paths.items()}

    assert complaints(ratios, Kept.read(), made_with()) == []


def test_without_valgrind_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(CountingError, match=r"make services.*apt-get install valgrind"):
        count()


@pytest.mark.parametrize(("store", "fetch"), [(4.0, 5.0), (4.39, 4.51), (3.61, 5.49)])
def test_a_ratio_within_the_bound_is_fine(store: float, fetch: float) -> None:
    assert complaints({"redis: store": store, "redis: fetch": fetch}, KEPT, HERE) == []


def test_a_path_that_takes_more_is_named_with_both_figures_and_the_command() -> None:
    (found,) = complaints({"redis: store": 4.5, "redis: fetch": 5.0}, KEPT, HERE)

    assert found == (
        "'redis: store' takes 12% more instructions than are kept: 4.50 times the reference "
        "instead of 4.00; mend it, or run `make instructions UPDATE=1` and say why in the commit"
    )


def test_a_path_that_takes_fewer_asks_for_the_better_figure() -> None:
    (found,) = complaints({"redis: store": 4.0, "redis: fetch": 4.0}, KEPT, HERE)

    assert found == (
        "'redis: fetch' takes 20% fewer instructions than are kept: 4.00 times the reference "
        "instead of 5.00; run `make instructions UPDATE=1`, so that nobody can lose that again "
        "unnoticed"
    )


def test_a_new_path_needs_a_figure_and_an_old_one_loses_its_own() -> None:
    new, old = complaints({"redis: store": 4.0, "sqlite: store": 3.0}, KEPT, HERE)

    assert new == (
        "'sqlite: store' is counted, but nothing is kept for it: run `make instructions UPDATE=1`"
    )
    assert old == "'redis: fetch' is kept, but no longer counted: run `make instructions UPDATE=1`"


def test_other_versions_are_told_beside_a_figure_that_is_off() -> None:
    other = "Python 3.12.1, redis 9.0.0"

    (found,) = complaints({"redis: store": 4.5, "redis: fetch": 5.0}, KEPT, other)

    assert found.endswith(f"(kept with {HERE}; this is {other})")
    assert complaints(KEPT.ratios, KEPT, other) == []


def test_what_is_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"

    assert Kept.read(file).ratios == {}
    KEPT.write(file)

    assert Kept.read(file) == KEPT


def test_the_repository_keeps_a_figure_for_each_path() -> None:
    assert list(Kept.read(FILE).ratios) == list(PATHS)
    assert len(PATHS) == 10
