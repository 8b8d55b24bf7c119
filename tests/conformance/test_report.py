"""What `--conformance-report` writes: for programs, for people, and never a password."""

from __future__ import annotations

import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from upshot_conformance.clauses import CLAUSES
from upshot_conformance.findings import Kind
from upshot_conformance.report import ReportError, Verdict, Waivers, read, write
from upshot_conformance.report.badge import badge
from upshot_conformance.report.evidence import Evidence, Judged, gather
from upshot_conformance.report.files import replace_file
from upshot_conformance.report.markdown import markdown, matrix
from upshot_conformance.report.page import page
from upshot_conformance.report.text import LONGEST, Scrubber, plain

from .reporting import (
    ENCODED,
    FAILED,
    PASSWORD,
    URL,
    backend,
    each_way,
    one,
    report,
    run,
    tally,
    written,
)

HOSTILE = (
    "</pre></details><script>alert('x')</script> ]]> & \x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 "
    "\ud800 \u202eright to left |a|b| ```\n```` <!-- --> \r\nend"
)


# -- verdicts and badges ------------------------------------------------------------------------

SKIPPED = [report("redis", each, kind=f"{Kind.ABSENT}: nothing there") for each in CLAUSES]
VERDICTS: Sequence[tuple[str, Evidence, Verdict, str]] = [
    ("whole", one(), Verdict.CONFORMANT, "brightgreen"),
    ("failed", one([report("redis", "ST-2", message=FAILED)]), Verdict.NON_CONFORMANT, "red"),
    ("waived", one([report("redis", "ST-2", kind=Kind.WAIVED)]), Verdict.PARTIAL, "yellow"),
    ("untold", one([report("redis", "ST-2", kind="unavailable")]), Verdict.PARTIAL, "yellow"),
    ("filtered", one(filters=("-k", "x")), Verdict.PARTIAL, "yellow"),
    ("stopped", one(complete=False), Verdict.PARTIAL, "yellow"),
    ("all skipped", one(SKIPPED), Verdict.NOT_RUN, "lightgrey"),
    ("never run", gather(run(), [backend()], []), Verdict.NOT_RUN, "lightgrey"),
]


@pytest.mark.parametrize(
    ("evidence", "verdict", "color"),
    [pytest.param(*rest, id=name) for name, *rest in VERDICTS],
)
def test_only_a_conformant_backend_is_green(
    evidence: Evidence, verdict: Verdict, color: str, tmp_path: Path
) -> None:
    (judged,) = evidence.judged
    shown = json.loads(badge(judged, "1.0"))

    assert judged.verdict is verdict
    assert judged.sentence.startswith(verdict)
    assert shown["color"] == color
    assert shown["label"] == "upshot contract 1.0"
    assert shown["schemaVersion"] == 1
    assert ("conformant" in shown["message"]) is (verdict is Verdict.NON_CONFORMANT)
    assert read(written(tmp_path, evidence)) == evidence
    assert read(written(tmp_path, evidence, summary=True)).judged == evidence.judged


def test_a_badge_counts_what_is_proven_of_what_applies() -> None:
    (judged,) = one(
        [report("redis", "FT-1", kind=Kind.ABSENT), report("redis", "RD-3", kind=Kind.REFUSAL)]
    ).judged
    core = sum(each.level == "core" for each in CLAUSES.values())
    extended = len(CLAUSES) - core

    message = json.loads(badge(judged, "1.0"))["message"]

    assert message == (f"core {core - 1}/{core - 1} · ext {extended}/{extended} · 0 waived")


# -- the page -----------------------------------------------------------------------------------


class Parsed(html.parser.HTMLParser):
    """Elements, ids, links and text of a page; complains about elements that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = Counter[str]()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.titles: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements[tag] += 1
        if (name := found.get("id")) is not None:
            self.ids.append(name)
            self.titles[name] = found.get("title") or ""
        if (link := found.get("href")) is not None:
            self.links.append(link)
        assert not found.keys() & {"src", "onclick", "style"}
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else() -> None:
    text = page(one(each_way()))
    found = Parsed(text)

    assert not found.elements.keys() & {"script", "link", "img", "iframe", "object"}
    assert found.elements["style"] == 1
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src &#x27;none&#x27;" in text


def test_every_link_of_the_page_leads_somewhere() -> None:
    found = Parsed(page(one(each_way())))

    assert {count for _, count in Counter(found.ids).items()} == {1}
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert {f"redis-{clause_id}" for clause_id in CLAUSES} <= set(found.ids)
    assert CLAUSES.keys() <= set(found.ids)


def test_every_cell_says_how_and_why() -> None:
    found = Parsed(page(one(each_way())))

    assert found.titles["redis-ST-1"] == "ST-1 on redis: passed"
    assert found.titles["redis-ST-2"] == "ST-2 on redis: failed"
    assert found.titles["redis-WT-1"] == "WT-1 on redis: waived (bug 17)"
    assert found.titles["redis-FT-1"] == "FT-1 on redis: not applicable (there is nothing to cut)"
    for shown in ("FAILED", "waived", "refused", "n/a", "not run", "untold", "early"):
        assert shown in found.text
    assert "not run: --disruptive was not given (FT-3 on redis)" in found.text
    assert "works although it is not declared: redis" in found.text


def test_the_page_explains_each_clause_and_how_it_was_run() -> None:
    found = Parsed(page(one(each_way(), command=("pytest", "--backend", "a b"))))

    for clause in CLAUSES.values():
        assert clause.text in found.text
        assert clause.why in found.text
    for told in ("Redis 7.2.4", "redis 7.1.0", "28 November 2026", "42", "visibility", FAILED):
        assert told in found.text
    assert "pytest --backend 'a b'" in found.text


def test_the_page_says_first_what_was_left_out() -> None:
    found = Parsed(page(one(filters=("--clause=ST", "-k"), complete=False)))
    before = found.text.partition("Verdicts")[0]

    assert "Not every test was run (--clause=ST -k): this proves no conformance." in before
    assert "The run was stopped before its last test." in before
    assert "proves no conformance" not in Parsed(page(one())).text
    assert "proves no conformance" in markdown(one(filters=("-k",)))
    assert "proves no conformance" not in markdown(one())


def test_a_page_of_many_backends_is_one_table() -> None:
    labels = [f"kind-{number}" for number in range(11)]
    evidence = gather(run(), [backend(each) for each in labels], [tally(each) for each in labels])
    found = Parsed(page(evidence))

    assert "11 of 11 backends conformant" in found.text
    assert {f"{label}-ST-2" for label in labels} <= set(found.ids)
    assert f"all {len(labels)} backends" in found.text


# -- Markdown and JUnit -------------------------------------------------------------------------


def cells(table: str) -> list[list[str]]:
    return [re.split(r" \| ", line[2:-2]) for line in table.splitlines()]


def test_the_matrix_has_a_row_for_each_group() -> None:
    rows = cells(matrix(one(each_way()).judged))

    assert [row[0].partition(":")[0] for row in rows[2:-1]] == list(
        dict.fromkeys(each.group for each in CLAUSES.values())
    )
    assert {row[0]: row[1] for row in rows}["ID: Identity"] == "4/4"
    assert {row[0]: row[1] for row in rows}["ST: States"] == "6/8 · 1 FAILED · 1 n/a"
    assert rows[-1] == ["**verdict**", "**non-conformant**"]


def test_the_matrix_has_a_row_for_each_clause() -> None:
    rows = cells(matrix(one(each_way()).judged, "clauses"))

    assert len(rows) == len(CLAUSES) + 2
    assert {row[0]: row[1] for row in rows}["FT-1"].endswith(" n/a")


def test_junit_names_clauses_and_counts(tmp_path: Path) -> None:
    write(tmp_path, run(), [backend()], [tally("redis", each_way())])
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    failing = suite.find("testcase/failure/..")

    assert failing is not None
    assert failing.find("properties/property[@name='clause'][@value='ST-2']") is not None
    assert failing.findtext("failure") == FAILED
    assert suite.get("name") == "redis"
    assert suite.get("failures") == "1"
    assert suite.get("tests") == str(len(suite.findall("testcase")))
    assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
    for case in suite.findall("testcase"):
        assert case.find("properties/property[@name='clause']") is not None


# -- what must not be in it ---------------------------------------------------------------------


def everything(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode("utf-8") for path in sorted(folder.iterdir())}


def test_no_file_has_a_password(tmp_path: Path) -> None:
    split = f"{PASSWORD[:4]}\x1b[1m{PASSWORD[4:]}"
    said = f"cannot reach {URL}: AUTH {PASSWORD!r} {ENCODED} {PASSWORD.lower()} {split}"
    others = [
        report("redis", "ST-2", message=said),
        report("redis", "WT-1", kind=f"{Kind.WAIVED}: {said}"),
        report("redis", "RL-6", skipped=said),
    ]
    facts = backend(server=said, url=URL)
    waivers = Waivers(file=PASSWORD, sha256="0", used={"WT-1": said})
    how = run(
        command=("pytest", f"--backend={URL}", "-k", PASSWORD),
        filters=("-k", PASSWORD),
        untested={"mongo": said},
        waivers=waivers,
    )

    write(tmp_path, how, [facts], [tally("redis", others)])

    for name, text in everything(tmp_path).items():
        for form in (PASSWORD, PASSWORD.lower(), ENCODED, "Unique", "unique"):
            assert form not in text, name
    assert "***" in (tmp_path / "report.html").read_text()
    assert ENCODED not in repr(backend())
    assert ENCODED not in repr(run(command=(URL,)))


def test_no_file_says_where_python_is_installed(tmp_path: Path) -> None:
    command = ("/opt/here/bin/python", "/opt/here/bin/pytest", "--backend=sqlite:////srv/x.db")
    evidence = write(tmp_path, run(command), [backend()], [tally("redis")])

    assert evidence.run.command == ("python", "pytest", "--backend=sqlite:////srv/x.db")
    assert not [name for name, text in everything(tmp_path).items() if "/opt/here" in text]


def test_a_hostile_message_stays_text(tmp_path: Path) -> None:
    others = [
        report("redis", "ST-2", message=HOSTILE),
        report("redis", "FT-1", kind=f"{Kind.ABSENT}: {HOSTILE}"),
    ]
    write(tmp_path, run(), [backend(server=HOSTILE)], [tally("redis", others)])
    files = everything(tmp_path)
    found = Parsed(files["report.html"])
    (failure,) = ElementTree.fromstring(files["junit.xml"]).iter("failure")

    assert "script" not in found.elements
    assert "<script>alert('x')</script>" in found.text
    assert "<script>" in (failure.text or "")
    assert "red" in (failure.text or "")
    for name, text in files.items():
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text), name
    assert read(tmp_path / "results.jsonl").judged[0].verdict is Verdict.NON_CONFORMANT
    fences = [line for line in files["report.md"].splitlines() if line.startswith("`````")]
    assert len(fences) == 2


def test_a_long_message_is_cut_in_the_middle() -> None:
    text = Scrubber([])("head " + "x" * 10 * LONGEST + " tail")

    assert len(text) < LONGEST + 100
    assert text.startswith("head ")
    assert text.endswith(" tail")
    assert "characters left out" in text


def test_plain_text_stays_as_it_is() -> None:
    text = "naïve 日本語 🎈\tand\nmore ***"

    assert plain(text) == text
    assert plain("\x9b31m \x1b(B a\x1bMb") == "\\x9b31m  ab"


# -- the folder ---------------------------------------------------------------------------------


def test_the_folder_is_made_with_every_file(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    (folder.parent).mkdir()

    evidence = write(folder, run(), [backend("a/b")], [tally("a/b")])

    assert sorted(everything(folder)) == [
        "badge-a%2Fb.json",
        "junit.xml",
        "report.html",
        "report.md",
        "results.jsonl",
    ]
    assert read(folder / "results.jsonl") == evidence


def test_a_second_report_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, run(), [backend()], [tally("redis")])
    write(tmp_path, run(seed=7), [backend()], [tally("redis", each_way())])

    assert read(tmp_path / "results.jsonl").run.seed == 7
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_the_folder_is_refused(below: str, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")

    with pytest.raises(ReportError, match="no folder"):
        write(place / below, run(), [backend()], [tally("redis")])
    assert place.read_text() == "mine"


def test_what_cannot_be_replaced_is_an_error_that_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()

    with pytest.raises(ReportError, match="cannot be written to"):
        write(tmp_path, run(), [backend()], [tally("redis")])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_replaced_file_can_be_read_by_others(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", "text")

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_backends_that_never_ran_are_in_the_report() -> None:
    evidence = gather(run(), [backend(), backend("late")], [tally("redis")])
    by_label: dict[str, Judged] = {each.facts.label: each for each in evidence.judged}

    assert by_label["late"].verdict is Verdict.NOT_RUN
    assert by_label["redis"].verdict is Verdict.CONFORMANT
