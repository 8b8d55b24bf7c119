"""`results.jsonl`: what is in it, and which files prove nothing."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Kind, Standing
from upshot_conformance.report import EvidenceError, read
from upshot_conformance.report.evidence import gather
from upshot_conformance.report.junit import junit
from upshot_conformance.report.markdown import markdown
from upshot_conformance.report.page import page

from .reporting import FAILED, backend, each_way, one, report, run, tally, written


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    evidence = one(each_way())

    assert read(written(tmp_path, evidence)) == evidence


@given(
    found=st.lists(
        st.tuples(st.sampled_from(list(CLAUSES)), st.sampled_from([*Kind, "", FAILED])), max_size=12
    ),
    rest=st.booleans(),
    whole=st.booleans(),
)
@example(found=[("RL-6", Kind.UNAVAILABLE), ("RL-6", "")], rest=False, whole=True)
@settings(max_examples=60, deadline=None)
def test_whatever_a_run_shows_can_be_read_again(
    found: list[tuple[str, str]], rest: bool, whole: bool
) -> None:
    others = [
        report("redis", clause_id, test=f"test_{number}", message=FAILED)
        if kind == FAILED
        else report("redis", clause_id, test=f"test_{number}", kind=kind)
        for number, (clause_id, kind) in enumerate(found)
    ]
    tallied = tally("redis", others, passed=CLAUSES if rest else ())
    evidence = gather(run(complete=whole), [backend()], [tallied])

    with tempfile.TemporaryDirectory() as folder:
        for summary in (False, True):
            again = read(written(Path(folder), evidence, summary=summary))
            assert (again.run, again.judged) == (evidence.run, evidence.judged)
    assert page(evidence)
    assert markdown(evidence)
    assert junit(evidence)


def test_a_summary_has_all_but_the_tests(tmp_path: Path) -> None:
    evidence = one(each_way())
    path = written(tmp_path, evidence, summary=True)
    summed = read(path)

    assert (summed.run, summed.judged, summed.results) == (evidence.run, evidence.judged, ())
    assert len(path.read_text().splitlines()) == 2


def test_there_is_a_line_for_each_clause_of_each_test(tmp_path: Path) -> None:
    evidence = one([report("redis", "ST-2", "WT-3", message=FAILED)])
    lines = [json.loads(line) for line in written(tmp_path, evidence).read_text().splitlines()]
    broken = [line for line in lines if line.get("standing") == "failed"]

    assert [line["kind"] for line in lines][:2] == ["header", "result"]
    assert lines[-1]["kind"] == "footer"
    assert [line["clause"] for line in broken] == ["ST-2", "WT-3"]
    assert broken[0] == {
        "kind": "result",
        "backend": "redis",
        "clause": "ST-2",
        "level": "core",
        "gate": "",
        "test": "test_made.py::test_it_ST-2_WT-3[redis]",
        "standing": "failed",
        "reason": "",
        "seconds": 0.25,
        "message": FAILED,
        "undeclared": False,
    }


def test_every_standing_is_counted_by_level(tmp_path: Path) -> None:
    evidence = one(each_way())
    footer = json.loads(written(tmp_path, evidence).read_text().splitlines()[-1])
    found = footer["backends"]["redis"]

    assert found["verdict"] == "non-conformant"
    assert found["counts"]["core"]["failed"] == 1
    assert found["counts"]["extended"]["refused as declared"] == 1
    assert {name for counts in found["counts"].values() for name in counts} == set(Standing)
    assert sum(sum(counts.values()) for counts in found["counts"].values()) == len(CLAUSES)
    assert found["clauses"]["WT-1"]["reasons"] == ["bug 17"]
    assert found["clauses"]["ST-4"]["undeclared"] is True


def test_a_clause_newer_than_the_backend_is_provisional(tmp_path: Path) -> None:
    evidence = gather(run(), [backend(contract="0.9")], [tally("redis")])

    assert {each.level for each in evidence.results} == {"provisional"}


Lines = list[dict[str, Any]]


def cut_off(lines: Lines) -> None:
    del lines[-1]


def no_header(lines: Lines) -> None:
    del lines[0]


def two_headers(lines: Lines) -> None:
    lines.insert(1, lines[0])


def another_schema(lines: Lines) -> None:
    lines[0]["schema"] = 2


def one_result_less(lines: Lines) -> None:
    del lines[5]


def one_test_less(lines: Lines) -> None:
    del lines[5]
    lines[-1]["results"] -= 1


def other_counts(lines: Lines) -> None:
    lines[-1]["backends"]["redis"]["counts"]["core"]["passed"] += 1


def another_standing(lines: Lines) -> None:
    lines[5]["standing"] = "failed"


def an_unknown_standing(lines: Lines) -> None:
    lines[5]["standing"] = "fine"


def another_verdict(lines: Lines) -> None:
    lines[-1]["backends"]["redis"]["verdict"] = "partial"


def conformant_with_filters(lines: Lines) -> None:
    lines[0]["run"]["filters"] = ["--clause=ST"]


def conformant_but_stopped(lines: Lines) -> None:
    lines[0]["run"]["complete"] = lines[-1]["complete"] = False


def complete_in_one_place(lines: Lines) -> None:
    lines[-1]["complete"] = False


def another_backend(lines: Lines) -> None:
    lines[5]["backend"] = "other"


def an_unknown_fact(lines: Lines) -> None:
    lines[0]["run"]["mood"] = "good"


def a_missing_field(lines: Lines) -> None:
    del lines[5]["reason"]


def a_number_for_text(lines: Lines) -> None:
    lines[0]["backends"][0]["server"] = 7


def text_for_a_number(lines: Lines) -> None:
    lines[5]["seconds"] = "1"


def one_label_twice(lines: Lines) -> None:
    lines[0]["backends"] *= 2


def no_lines(lines: Lines) -> None:
    lines.clear()


SPOILED: Sequence[tuple[Callable[[Lines], None], str]] = [
    (cut_off, "no footer"),
    (no_header, "no header"),
    (no_lines, "line 1"),
    (two_headers, "something else than results"),
    (another_schema, "of schema 2"),
    (one_result_less, f"counts {len(CLAUSES)} results, not {len(CLAUSES) - 1}"),
    (one_test_less, "its tests say not run"),
    (other_counts, "do not add up"),
    (another_standing, "its tests say failed"),
    (an_unknown_standing, "'fine'"),
    (another_verdict, "its clauses say conformant"),
    (conformant_with_filters, "not every test was run"),
    (conformant_but_stopped, "not every test was run"),
    (complete_in_one_place, "disagree"),
    (another_backend, "results of other backends: other"),
    (an_unknown_fact, "mood"),
    (a_missing_field, "'reason': missing"),
    (a_number_for_text, "server: 7 is no str"),
    (text_for_a_number, "seconds: '1' is no float"),
    (one_label_twice, "different backends"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILED, ids=[spoil.__name__ for spoil, _ in SPOILED])
def test_a_file_that_proves_nothing_is_refused(
    spoil: Callable[[Lines], None], says: str, tmp_path: Path
) -> None:
    path = written(tmp_path, one())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    spoil(lines)
    path.write_text("\n".join(map(json.dumps, lines)))

    with pytest.raises(EvidenceError, match=re.escape(says)) as caught:
        read(path)
    assert str(caught.value).startswith("results.jsonl: ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n", b"{]\n", b'{"kind": "header"}'])
def test_what_is_no_evidence_at_all_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)

    with pytest.raises(EvidenceError):
        read(path)
