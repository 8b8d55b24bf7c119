"""The page that shows a run: figures, targets, and the plot beside it."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Sequence
from io import StringIO
from xml.etree import ElementTree

import pytest
from benchmarks.applications import APPLICATIONS
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Figure, markdown
from benchmarks.groups import GROUPS
from benchmarks.line import usage
from benchmarks.page import Run, page
from benchmarks.player import MissingError, in_turn
from benchmarks.plot import SHOWN, plot
from benchmarks.reasons import REASONS, UNMEASURED, Reason
from benchmarks.services import SERVICES
from benchmarks.targets import BEST, TARGETS, Target, board, verdicts
from rich.console import Console

from benchmarks import page as page_module

SVG = "{http://www.w3.org/2000/svg}"
STORE = "store small"


def figure(name: str = STORE, service: str = "redis", **samples: Sequence[float]) -> Figure:
    return Figure("micro", service, name, "µs", samples={k: list(v) for k, v in samples.items()})


def verdict(target: Target, *figures: Figure) -> tuple[str, str]:
    (found,) = verdicts(figures, [target])
    return found.cells[4], found.cells[5]


# -- figures --------------------------------------------------------------------------------------


def test_a_ratio_is_of_what_was_measured_in_the_same_round() -> None:
    measured = figure(upshot=[1, 20, 3], raw=[1, 10, 1])

    assert measured.ratio("upshot", "raw") == (2.0, 1.0, 3.0)
    assert measured.ratio("upshot", "celery") is None


def test_a_ratio_to_nothing_is_none() -> None:
    assert figure(upshot=[1.0], raw=[0.0]).ratio("upshot", "raw") is None


def test_a_figure_is_one_line_of_json_with_its_samples() -> None:
    line = figure(upshot=[1.5], raw=[1.0]).line()

    assert "\n" not in line
    assert json.loads(line)["samples"] == {"upshot": [1.5], "raw": [1.0]}


def test_a_table_has_a_cell_for_each_contender_and_an_empty_one_for_who_took_no_part() -> None:
    lines = markdown([figure(upshot=[2.0], raw=[1.0]), figure("other", celery=[3.0])]).split("\n")

    assert lines[0] == "| service | figure | unit | upshot | raw | celery |"
    assert lines[2] == "| redis | store small | µs ↓ | 2; x2.00 raw (2.00 to 2.00) | 1 |  |"
    assert lines[3] == "| redis | other | µs ↓ |  |  | 3 |"


def test_a_cell_of_the_page_has_the_ratios_to_the_driver_and_to_celery() -> None:
    shown = markdown([figure(upshot=[2.0], raw=[1.0], celery=[8.0])])

    assert "| 2; x2.00 raw (2.00 to 2.00); x0.25 celery (0.25 to 0.25) | 1 |" in shown
    assert "| 8; x8.00 raw (8.00 to 8.00) |" in shown


# -- turns ----------------------------------------------------------------------------------------


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_no_round_begins_after_the_time_that_there_is() -> None:
    acted: list[str] = []

    in_turn([Named("a"), Named("b")], 9, lambda each: acted.append(each.name), longest=-1.0)

    assert acted == ["a", "b"]


def test_who_fails_is_left_out_with_a_line_and_who_has_no_way_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    acted: list[str] = []

    def act(each: Named) -> None:
        acted.append(each.name)
        if each.name == "fails":
            raise RuntimeError("fails: why")
        if each.name == "cannot":
            raise MissingError

    in_turn([Named("fails"), Named("cannot"), Named("can")], 2, act)

    assert sorted(acted) == ["can", "can", "cannot", "fails"]
    assert capsys.readouterr().err == "left out: fails: why\n"


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bound", "met"),
    [
        pytest.param("at most", 0.5, "met", id="at-most"),
        pytest.param("at most", 0.49, "**missed**", id="more-than-at-most"),
        pytest.param("at least", 2, "met", id="twice-as-fast"),
        pytest.param("at least", 2.1, "**missed**", id="not-so-much-faster"),
    ],
)
def test_a_target_is_met_or_missed(kind: str, bound: float, met: str) -> None:
    target = Target("redis", STORE, "celery", bound, kind)  # type: ignore[arg-type]  # a parameter

    assert verdict(target, figure(upshot=[10.0], celery=[20.0]))[1] == met


def test_of_a_rate_more_is_better() -> None:
    rate = Figure("tasks", "redis", "rate", "1/s", "higher", {"upshot": [30.0], "huey": [10.0]})

    assert verdict(Target("redis", "rate", "huey", 3, "at least"), rate) == ("3 (3 to 3)", "met")


def test_the_best_peer_is_neither_ours_nor_the_driver() -> None:
    measured = figure(upshot=[2.0], raw=[0.1], celery=[4.0], huey=[1.0])

    (found,) = verdicts([measured], [Target("redis", STORE, BEST, 1.0)])

    assert (found.against, found.measured, found.met) == ("huey", (2.0, 2.0, 2.0), False)


def test_a_bound_without_a_name_is_on_the_figure_itself_and_may_be_zero() -> None:
    failed = Target("redis", "failed", "", 0)

    assert verdict(failed, figure("failed", upshot=[0, 0, 0])) == ("0 (0 to 0)", "met")
    assert verdict(failed, figure("failed", upshot=[0, 1, 1])) == ("1 (0 to 1)", "**missed**")


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param([], id="figure"),
        pytest.param([figure(service="sqlite", upshot=[1.0], raw=[1.0])], id="service"),
        pytest.param([figure(upshot=[1.0])], id="other"),
        pytest.param([figure(raw=[1.0])], id="ours"),
    ],
)
@pytest.mark.parametrize("against", ["raw", BEST])
def test_what_was_not_measured_says_so(measured: list[Figure], against: str) -> None:
    assert verdict(Target("redis", STORE, against, 1.0), *measured) == ("", "not measured")


def test_targets_name_services_and_contenders_that_there_are() -> None:
    assert {each.service for each in TARGETS} <= set(SERVICES)
    assert {each.against for each in TARGETS} <= {*CONTENDERS, BEST, ""}
    assert len({(each.service, each.figure, each.against, each.kind) for each in TARGETS}) == len(
        TARGETS
    )
    assert all(each.source for each in TARGETS)


def test_groups_name_services_that_there_are() -> None:
    assert all(set(each.services) <= set(SERVICES) for each in GROUPS.values())
    assert set(APPLICATIONS) < set(CONTENDERS)


# -- the plot -------------------------------------------------------------------------------------


def bars(svg: str, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    found = [each for each in root.iter(f"{SVG}rect") if each.get("class") == kind]
    return found[1:]  # the first one is the legend's


def length(bar: ElementTree.Element) -> float:
    return float(bar.get("width", "nan"))


def test_the_plot_has_a_bar_for_each_contender_that_was_measured_beside_the_driver() -> None:
    svg = plot(
        [
            figure(upshot=[2.0], raw=[1.0], celery=[8.0]),
            figure(service="mongodb", upshot=[3.0], raw=[1.0]),
            figure(service="rpc", upshot=[3.0], celery=[1.0]),
            figure("not shown", upshot=[3.0], raw=[1.0]),
        ]
    )

    assert len(bars(svg, "ours")) == 2
    assert len(bars(svg, "theirs")) == 1
    assert "redis: store" in svg
    assert "rpc: " not in svg


def test_the_plots_scale_is_logarithmic() -> None:
    svg = plot([figure(upshot=[2.0], raw=[1.0], celery=[8.0])])

    (ours,), (theirs,) = bars(svg, "ours"), bars(svg, "theirs")

    assert length(theirs) / length(ours) == pytest.approx(3.0, rel=0.02)


def test_a_bar_for_less_than_the_driver_is_on_the_left() -> None:
    svg = plot([figure(upshot=[0.5], raw=[1.0], celery=[2.0])])

    (ours,), (theirs,) = bars(svg, "ours"), bars(svg, "theirs")

    assert float(ours.get("x", "nan")) + length(ours) == pytest.approx(
        float(theirs.get("x", "nan")), abs=0.2
    )


def test_rows_come_by_service_and_then_in_their_order() -> None:
    wake, store = SHOWN[3][0], SHOWN[0][0]
    where = [(store, "redis"), (store, "rpc"), (wake, "redis")]
    svg = plot([figure(*each, upshot=[2.0], raw=[1.0]) for each in where])

    assert re.findall(r">(\w+: \w+)<", svg) == ["redis: store", "redis: wake", "rpc: store"]


@pytest.mark.parametrize(
    "ratio", [pytest.param(each, id=str(each)) for each in (1e-4, 1.0, 12345.0)]
)
def test_every_bar_is_inside(ratio: float) -> None:
    svg = plot([figure(upshot=[ratio], raw=[1.0])])
    (bar,) = bars(svg, "ours")

    right = float(bar.get("x", "nan")) + length(bar)

    assert math.isfinite(right)
    assert (
        0 < float(bar.get("x", "nan")) < right < float(ElementTree.fromstring(svg).get("width", 0))
    )


def test_the_plot_of_nothing_is_a_picture_as_well() -> None:
    assert ElementTree.fromstring(plot([])).tag == f"{SVG}svg"


def test_the_plot_is_legible_on_any_background() -> None:
    svg = plot([])

    assert 'class="card"' in svg
    assert "prefers-color-scheme: dark" in svg


# -- the page -------------------------------------------------------------------------------------


def test_the_page_says_how_it_was_made_and_shows_plot_targets_and_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_module, "_peers", lambda: "celery 5")
    run = Run("make bench")
    run.groups["Store, fetch, forget"] = [figure(upshot=[10.0], raw=[10.0], celery=[100.0])]
    run.seconds["Store, fetch, forget"] = 90.0

    text = page(run, "benchmarks.svg")

    assert "Generated by `make bench`" in text
    assert re.search(r"upshot \d.*redis \d", text)
    assert "Peers: celery 5" in text
    assert "Store, fetch, forget 90" in text
    assert "](benchmarks.svg)" in text
    assert "| table, Celery | redis | store small | at least 4 x as good as celery |" in text
    assert "| not measured |" in text
    assert text.index("## Targets") < text.index("## Store, fetch, forget")


def test_the_page_says_why_a_target_is_missed_or_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_module, "_peers", lambda: "celery 5")
    monkeypatch.setattr(
        page_module, "REASONS", [Reason(("redis",), (STORE,), "It waits for the disk.")]
    )
    run = Run("make bench")
    fetch = figure("fetch small", upshot=[10.0], celery=[10.0])
    run.groups["Store"] = [figure(upshot=[10.0], celery=[10.0]), fetch]

    text = page(run, "benchmarks.svg")

    missed, unmeasured = text.split("### What is not measured, and why")
    assert "**redis: store small.** It waits for the disk." in missed
    assert "**redis: fetch small.** Nobody has found out yet." in missed
    assert "In Celery's rpc backend each thread has a queue of replies of its own" in unmeasured


def test_reasons_are_given_for_figures_that_are_aimed_at() -> None:
    for reason in (*REASONS, *UNMEASURED):
        for service in reason.services:
            aimed = [each.figure for each in TARGETS if each.service == service]
            for beginning in reason.figures:
                assert any(each.startswith(beginning) for each in aimed), (service, beginning)


def test_a_terminal_is_shown_what_was_measured_of_the_targets() -> None:
    targets = [Target("redis", STORE, "celery", 4, "at least"), Target("rpc", STORE, "raw", 1)]
    found = verdicts([figure(upshot=[10.0], celery=[10.0])], targets)
    console = Console(width=200, record=True, file=StringIO())

    console.print(board(found))

    text = console.export_text()
    assert re.search(r"redis +│ store small │ at least 4 x as good as celery .* missed", text)
    assert "rpc" not in text


# -- what a process holds -------------------------------------------------------------------------


def test_only_what_is_connected_counts_as_a_connection() -> None:
    before = usage()["connections"]
    here, there = socket.socketpair()  # a program's own, as an event loop has

    with socket.create_server(("127.0.0.1", 0)) as server, here, there:
        assert usage()["connections"] == before
        with socket.create_connection(server.getsockname()):
            assert usage()["connections"] == before + 1
